package catalog

// Example is a pool of a driver that somebody has written down, ready to be put into the configuration: for
// a driver whose pools differ as much as the storage behind them.
type Example struct {
	Name, Title string
	// Driver is what is behind the pool, and its version.
	Driver string
	// Start is how it is started: "image", "command" or "endpoint".
	Start string
	// State is "tested here", "started here" or "documented only", and How is how, where there is something to say.
	State, How string
	// Needs is what has to be there.
	Needs string
	// Sources are pages where more is said.
	Sources []string
	// Kubeshim tells that it asks a Kubernetes API, which is faked for it.
	Kubeshim bool
	// Text is the file: TOML, with all of the above in comments.
	Text string
}

// WithExamples returns v with pools to begin with, which are read when somebody asks for them.
func (v Volume) WithExamples(examples func() []Example) Volume {
	v.examples = examples
	return v
}

// Examples returns the pools to begin with.
func (v Volume) Examples() []Example {
	if v.examples == nil {
		return nil
	}
	return v.examples()
}
