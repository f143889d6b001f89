package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// PluginResults is everything that the suite of managed plugins measured.
type PluginResults struct {
	Machine Machine        `json:"machine"`
	Samples []PluginSample `json:"samples"`
	Memory  []PluginMemory `json:"memory"`
	// PluginBytes is the size of the plugin that was installed.
	PluginBytes int64 `json:"plugin_bytes"`
}

// runPlugins measures managed plugins, or renders what was measured before.
func runPlugins(quick, render bool, out, daemon, scratch string) error {
	path := filepath.Join(out, "performance", "plugins.json")
	r := &PluginResults{}
	if render {
		b, err := os.ReadFile(path)
		if err == nil {
			err = json.Unmarshal(b, r)
		}
		if err != nil {
			return err
		}
	} else {
		p := pluginPlan{rounds: 15, plugins: 20, bytes: 24 << 20}
		if quick {
			p = pluginPlan{rounds: 2, plugins: 2, bytes: 1 << 20}
		}
		var err error
		if r, err = measurePlugins(p, daemon, scratch); err != nil {
			return err
		}
	}
	if out == "" {
		fmt.Println(r.table())
		return nil
	}
	b, err := json.MarshalIndent(r, "", " ")
	if err == nil {
		err = os.WriteFile(path, append(b, '\n'), 0o644)
	}
	if err != nil {
		return err
	}
	return fillDocument(out, []section{{"plugins", r.table()}})
}

func measurePlugins(p pluginPlan, daemon, scratch string) (r *PluginResults, err error) {
	bin, dir, done, err := workplace(daemon, scratch)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, done()) }()
	s := &pluginSuite{pluginPlan: p, bin: bin, scratch: dir, results: new(PluginResults), say: newStage().say}
	if s.results.Machine, err = lookAtMachine(dir, bin.run); err != nil {
		return nil, err
	}
	return s.results, s.run()
}

// times of a verb on one side, by round.
func (r *PluginResults) times(peer, verb string) (ms []float64) {
	for _, x := range r.Samples {
		if x.Peer == peer && x.Verb == verb {
			ms = append(ms, x.Millis)
		}
	}
	return ms
}

// perPlugin is what each plugin adds to the memory of an engine, in bytes.
func (r *PluginResults) perPlugin(peer string) (bytes int64) {
	var idle, loaded PluginMemory
	for _, x := range r.Memory {
		if x.Peer != peer {
			continue
		}
		if x.Plugins == 0 {
			idle = x
		} else {
			loaded = x
		}
	}
	if loaded.Plugins == 0 {
		return 0
	}
	return (loaded.Bytes - idle.Bytes) / int64(loaded.Plugins)
}

func (r *PluginResults) table() string {
	var rows [][]string
	for _, verb := range pluginVerbs {
		ours, theirs := r.times(remora, verb), r.times(dockerd, verb)
		var pairs []float64
		for i := range min(len(ours), len(theirs)) {
			pairs = append(pairs, ours[i]/theirs[i])
		}
		x := ratioOf(pairs)
		met := "met"
		if verb == disableVerb {
			met = ""
		} else if x.mid > 1 {
			met = "**missed**"
		}
		rows = append(rows, []string{verb, span(median(ours) * 1e3), span(median(theirs) * 1e3), x.times(), met})
	}
	ours := r.perPlugin(remora)
	met := "met"
	if ours > 2<<20 {
		met = "**missed**"
	}
	rows = append(rows, []string{"memory of the engine for each plugin: under 2 MiB", kib(ours), kib(r.perPlugin(dockerd)), "", met})
	return fmt.Sprintf("A plugin of %s, against dockerd %s; %s, %s.\n\n", mib(r.PluginBytes), r.Machine.Engine, r.Machine.Commit, r.Machine.Date) +
		table([]string{"", "Remora:", "dockerd:", "Ratio of times:", ""}, rows)
}

// kib formats a number of bytes that is small.
func kib(bytes int64) string { return fmt.Sprintf("%d KiB", bytes>>10) }
