package volume

import (
	"context"
	"log/slog"
	"time"

	"github.com/remora-plugins/remora/sdk/internal/bounded"
)

// Attacher is implemented by a driver whose volumes are attached to one host at a time.
type Attacher interface {
	// Attach brings the volume to this host without mounting it, and by force takes it from
	// the host that has it, which may lose what it has not written yet. Without force a volume
	// that another host has is ErrInUse, with who has it and since when.
	Attach(ctx context.Context, name string, force bool) error
}

// Importer is implemented by a driver whose storage may hold what could be a volume and is none
// yet.
type Importer interface {
	// Import looks for such a thing by its ID or name, all for an empty ref, and tells what
	// would become of each. name is what the volume shall be called, empty for the name that
	// the thing has. Unless dry is set it is done to all that have no Problem.
	Import(ctx context.Context, ref, name string, dry bool) ([]Imported, error)
}

// Imported is what became of one disk by an [Importer], or would become of it.
type Imported struct {
	// Disk is the storage's own ID of it, Name that of the volume.
	Disk, Name string
	Size       int64
	Zone       string
	// From is the program that made it, as far as that can be told.
	From string
	// Holder is the host that has it now.
	Holder string
	// Problem is why it cannot be taken, empty where it can; Done that it was.
	Problem string
	Done    bool
}

// Attach brings a volume to this host, see [Attacher].
func (h *Handler) Attach(ctx context.Context, name string, force bool) error {
	d, err := can[Attacher](h, "attach volumes: they are in reach of this host as they are")
	if err != nil {
		return named(name, err)
	}
	return h.change(ctx, "attach", name, func(ctx context.Context) error {
		if err := d.Attach(ctx, name, force); err != nil {
			return err
		}
		h.log.InfoContext(ctx, "volume attached", slog.String("volume", name), slog.Bool("force", force))
		return nil
	})
}

// Import takes in what is no volume yet, see [Importer].
func (h *Handler) Import(ctx context.Context, ref, name string, dry bool) ([]Imported, error) {
	d, err := can[Importer](h, "import disks")
	if err != nil {
		return nil, err
	}
	if name != "" {
		if err := h.options.CheckName(name); err != nil {
			return nil, err
		}
	}
	ctx, cancel := h.limit(ctx, h.options.LongTimeout)
	defer cancel()
	all, err := bounded.Look(ctx, h.runner, func(ctx context.Context) ([]Imported, error) { return d.Import(ctx, ref, name, dry) })
	for _, i := range all {
		if i.Done {
			if err := h.made(ctx, i.Name); err != nil {
				return all, err
			}
		}
	}
	return all, redact(err, nil)
}

// Worker is implemented by a driver whose work may outlast the call that wanted it.
type Worker interface {
	// Jobs returns what goes on, and what has failed lately, the oldest first, from memory.
	Jobs() []Job
}

// Job is a piece of work of a [Worker].
type Job struct {
	ID string
	// Kind is the verb, such as "create", and Object what it is done to, such as a volume.
	Kind, Object string
	// State is the step that it is at, since Since.
	State        string
	Began, Since time.Time
	// Error is what went wrong last, as far as something did; Ended tells that the job has
	// failed for it, and does not go on.
	Error string
	Ended bool
}

// Jobs returns the jobs of a driver that is a [Worker], none of any other.
func (h *Handler) Jobs() []Job {
	if w, ok := h.driver.(Worker); ok {
		return w.Jobs()
	}
	return nil
}
