// Bench measures Remora against other volume plugins that do the same work, each a
// process of its own behind a unix socket, and writes what it found into
// docs/performance.md. It is run in its directory:
//
//	go run .            everything, a quarter of an hour; writes ../docs
//	go run . -quick     less of everything, under a minute; writes nothing
//	go run . -render    tables and plots anew from the results that are there
//
// With -suite storage it measures drivers and backups instead, against the bare file system
// and other backup programs, in a dozen minutes; -part runs one of its parts. With -suite plugins it
// measures managed plugins, against dockerd with the same registry, in two minutes. With -suite network it measures the
// network across hosts, against plain routes, VXLAN, Swarm's overlay, wireguard-go and Nebula, in ten minutes; -part
// runs one of its parts.
//
// The part with a real engine needs root and Docker, and is left out without.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

func main() {
	quick := flag.Bool("quick", false, "measure little, to see that it works; writes only where -out says")
	render := flag.Bool("render", false, "measure nothing, write the document from its results")
	which := flag.String("suite", "calls", "what to measure: calls, storage, plugins, network or members")
	part := flag.String("part", "", "measure one `part` of a suite: of storage fio, snapshots, lists or backups, of network data, control, answers or peers, of members their number; the rest stays as it was")
	out := flag.String("out", "", "`directory` of the document (default ../docs, none with -quick)")
	daemon := flag.String("remora", "", "`program` to measure (default: built from this tree)")
	only := flag.Int("volumes", 0, "measure with this `number` of volumes alone")
	scratch := flag.String("scratch", "", "`directory` for volumes, on the file system to measure (default: a temporary one, on an ext4 with a journal where the temporary directory has none)")
	flag.Parse()
	if *out == "" && !*quick {
		*out = "../docs"
	}
	var err error
	switch *which {
	case "calls":
		err = run(*quick, *render, *only, *out, *daemon, *scratch)
	case "storage":
		err = runStorage(*quick, *render, *part, *out, *daemon, *scratch)
	case "network":
		err = runNetwork(*quick, *render, *part, *out, *daemon, *scratch)
	case "members":
		err = runMembers(*quick, *render, *part, *out, *scratch)
	case "plugins":
		err = runPlugins(*quick, *render, *out, *daemon, *scratch)
	default:
		err = fmt.Errorf("no suite %q; there are calls, storage, plugins, network and members", *which)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(quick, render bool, only int, out, daemon, scratch string) error {
	if render {
		r, err := loadResults(filepath.Join(out, "performance", "results.json"))
		if err != nil {
			return err
		}
		return writeDocument(r, out)
	}
	p := plan{
		volumes: []int{100, 10_000, 100_000}, clients: []int{1, 16}, rounds: 25,
		batch: 100 * time.Millisecond, starts: 7, settle: 5 * time.Second, runs: 150,
	}
	if quick {
		p = plan{
			volumes: []int{1000}, clients: []int{1, 16}, rounds: 3,
			batch: 50 * time.Millisecond, starts: 2, settle: 500 * time.Millisecond, runs: 3,
		}
	}
	if only > 0 {
		p.volumes = []int{only}
	}
	r, err := measure(p, daemon, scratch)
	if err != nil {
		return err
	}
	return publish(r, out)
}

// publish writes the document and what lies beside it, or, without a directory for it,
// shows the tables.
func publish(r *Results, out string) error {
	if out == "" {
		fmt.Println(r.targets() + "\n" + r.all() + "\n" + r.rest())
		return nil
	}
	if err := os.MkdirAll(filepath.Join(out, "performance"), 0o755); err != nil {
		return err
	}
	if err := r.save(filepath.Join(out, "performance", "results.json")); err != nil {
		return err
	}
	return writeDocument(r, out)
}

// measure runs the plan in a directory of its own, which it removes.
func measure(p plan, daemon, scratch string) (r *Results, err error) {
	bin, dir, done, err := workplace(daemon, scratch)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, done()) }()
	s := &suite{plan: p, bin: bin, scratch: dir, results: new(Results), say: newStage().say}
	if s.results.Machine, err = lookAtMachine(dir, bin.run); err != nil {
		return nil, err
	}
	if err := s.empty(); err != nil {
		return nil, err
	}
	if err := s.dockerRun(); err != nil {
		return nil, err
	}
	for _, n := range p.volumes {
		if err := s.scale(n); err != nil {
			return nil, err
		}
	}
	return s.results, nil
}
