package main

import (
	"errors"
	"os"
	"path/filepath"
	"time"
)

// writer writes a byte to the same file again and again until it is stopped, and knows the
// longest that one of these writes took: what a container sees of a file system that is frozen.
type writer struct {
	stop    chan struct{}
	done    chan error
	longest time.Duration
}

func writeTo(dir string) (*writer, error) {
	f, err := os.Create(filepath.Join(dir, "writer"))
	if err != nil {
		return nil, err
	}
	w := &writer{stop: make(chan struct{}), done: make(chan error, 1)}
	go func() { w.done <- errors.Join(w.run(f), f.Close()) }()
	return w, nil
}

func (w *writer) run(f *os.File) error {
	for {
		begin := time.Now()
		if _, err := f.WriteAt([]byte{1}, 0); err != nil {
			return err
		}
		w.longest = max(w.longest, time.Since(begin))
		select {
		case <-w.stop:
			return nil
		case <-time.After(time.Millisecond):
		}
	}
}

// end returns the longest write.
func (w *writer) end() (time.Duration, error) {
	close(w.stop)
	err := <-w.done
	return w.longest, err
}
