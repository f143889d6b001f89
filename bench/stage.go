package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// stage is where the parts of a suite run: it says what comes next, ends when somebody interrupts it, and undoes
// what a part set up.
type stage struct {
	say  func(format string, args ...any)
	undo []func() error
	ctx  context.Context //nolint:containedctx // ends when somebody interrupts the suite
}

func newStage() stage {
	begin := time.Now()
	return stage{say: func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, "%5.0f s  %s\n", time.Since(begin).Seconds(), fmt.Sprintf(format, args...))
	}}
}

// step says what comes next, unless the suite was interrupted.
func (s *stage) step(format string, args ...any) error {
	if s.ctx.Err() != nil {
		return errors.New("interrupted")
	}
	s.say(format, args...)
	return nil
}

// part is one part of a suite, by the name that -part takes.
type part struct {
	name string
	run  func() error
}

// play runs the parts, or only one. Who interrupts it is left with nothing that they set up: the next step sees that there is an
// end to it.
func (s *stage) play(only string, parts ...part) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	s.ctx = ctx
	found := false
	var names []string
	for _, p := range parts {
		names = append(names, p.name)
		if only != "" && only != p.name {
			continue
		}
		found = true
		if err := s.alone(p.run); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	if !found {
		return fmt.Errorf("no part %q; there are %s", only, strings.Join(names, ", "))
	}
	return nil
}

// alone runs one part, and undoes what it set up, the last first.
func (s *stage) alone(run func() error) (err error) {
	defer func() {
		for len(s.undo) > 0 {
			last := s.undo[len(s.undo)-1]
			s.undo = s.undo[:len(s.undo)-1]
			err = errors.Join(err, last())
		}
	}()
	return run()
}

// measured are the results of a suite.
type measured interface {
	save(path string) error
	parts() []section
	plot() string
}

// runSuite measures a suite, or one part of it anew, or takes what was measured before, and writes it where out says: results,
// plot and the sections of the document. Without out it prints the sections.
func runSuite[R any, P interface {
	*R
	measured
}](suite string, render bool, part, out string, measure func(old *R) (*R, error)) error {
	path := filepath.Join(out, "performance", suite+".json")
	var old *R
	if out != "" && (render || part != "") {
		var err error
		if old, err = load[R](path); err != nil && (render || !errors.Is(err, fs.ErrNotExist)) {
			return err
		}
	}
	r := P(old)
	if !render {
		now, err := measure(old)
		if err != nil {
			return err
		}
		r = now
	}
	if out == "" {
		for _, section := range r.parts() {
			fmt.Println(section.text)
		}
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := r.save(path); err != nil {
		return err
	}
	if err := fillDocument(out, r.parts()); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(out, "performance", suite+".svg"), []byte(r.plot()), 0o644)
}

func load[R any](path string) (*R, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := new(R)
	return r, json.Unmarshal(b, r)
}
