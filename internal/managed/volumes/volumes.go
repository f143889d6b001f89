// Package volumes is what an engine does with volumes, for who drives Remora by the engine's own API:
// it finds a volume among all drivers, makes and removes one, and remembers its labels.
//
// A driver is a pool of this daemon or a managed plugin. Which volumes there are the drivers
// say; remembered is what they do not: of each volume that was made or asked for here, its driver,
// labels and options, in one file. It also says what a managed plugin is in use for.
//
// The order of calls and the errors are dockerd's (moby volume/service), except that a driver that is
// not there is said to be so at once, and that an error which is not "no such volume" has nothing forgotten.
package volumes

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/remora-plugins/remora/internal/managed/lock"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// Driver is one that has volumes.
type Driver interface {
	Create(ctx context.Context, name string, opts map[string]string) error
	Remove(ctx context.Context, name string) error
	Get(ctx context.Context, name string) (volume.Info, error)
	List(ctx context.Context) ([]volume.Info, error)
	// Scope is "local" or "global".
	Scope(ctx context.Context) string
}

// Named is a driver and what it is called.
type Named struct {
	Name string
	Driver
}

// Drivers are those that there are.
type Drivers interface {
	// Find returns the driver that a name means, under its full name.
	Find(ctx context.Context, name string) (Named, error)
	// All returns those that can be asked, sorted by name.
	All(ctx context.Context) []Named
}

// Volume is a volume as an engine shows it.
type Volume struct {
	volume.Info
	Driver  string
	Labels  map[string]string
	Options map[string]string
	Scope   string
}

// Service answers for the volumes of all drivers.
type Service struct {
	drivers Drivers
	book    *book
	log     *slog.Logger
	locks   lock.Keyed
}

// Open returns a service that remembers in dir, which is made if it is not there.
func Open(dir string, drivers Drivers, log *slog.Logger) (*Service, error) {
	b, err := openBook(dir, log)
	if err != nil {
		return nil, err
	}
	return &Service{drivers: drivers, book: b, log: log}, nil
}

// Close lets go of the directory.
func (s *Service) Close() error { return s.book.close() }

// Of returns the names of the volumes that are known of a driver, sorted.
func (s *Service) Of(driver string) []string { return s.book.of(driver) }

// Forget forgets the volumes of a driver that is there no more: their names are free, and a driver that comes under the same
// name does not have them.
func (s *Service) Forget(driver string) error {
	var errs []error
	for _, name := range s.book.of(driver) {
		errs = append(errs, s.book.forget(name))
	}
	return errdefs.Join(errs...)
}

// listTime bounds how long a list waits for a driver: what one does not tell is said in a warning.
const listTime = 15 * time.Second

// List returns the volumes of all drivers, sorted by name, and a line for each driver that could not be asked: of
// such a one the volumes are listed that are known.
func (s *Service) List(ctx context.Context) (all []Volume, warnings []string) {
	ctx, cancel := context.WithTimeoutCause(ctx, listTime, errdefs.Errorf(errdefs.ErrUnavailable, "no answer within %s", listTime))
	defer cancel()
	drivers := s.drivers.All(ctx)
	type answer struct {
		infos []volume.Info
		scope string
		err   error
	}
	answers := make([]answer, len(drivers))
	var wg sync.WaitGroup
	for i, d := range drivers {
		wg.Go(func() {
			answers[i].infos, answers[i].err = d.List(ctx)
			answers[i].scope = d.Scope(ctx)
		})
	}
	wg.Wait()
	for i, d := range drivers {
		if answers[i].err != nil {
			warnings = append(warnings, fmt.Sprintf("list %s: %v", d.Name, answers[i].err))
			for _, name := range s.book.of(d.Name) {
				answers[i].infos = append(answers[i].infos, volume.Info{Name: name})
			}
		}
		for _, info := range answers[i].infos {
			if e, ok := s.book.get(info.Name); ok && e.Driver != d.Name {
				s.log.WarnContext(ctx, "volume left out: its name is taken by another driver", slog.String("volume", info.Name),
					slog.String("driver", d.Name), slog.String("taken_by", e.Driver))
				continue
			}
			info.Status = nil
			all = append(all, s.shown(d.Name, answers[i].scope, info))
		}
	}
	slices.SortFunc(all, func(a, b Volume) int { return strings.Compare(a.Name, b.Name) })
	all = slices.CompactFunc(all, func(a, b Volume) bool { return a.Name == b.Name })
	return all, warnings
}

func (s *Service) shown(driver, scope string, info volume.Info) Volume {
	v := Volume{Info: info, Driver: driver, Scope: scope}
	if e, ok := s.book.get(info.Name); ok && e.Driver == driver {
		v.Labels, v.Options = maps.Clone(e.Labels), maps.Clone(e.Options)
	}
	return v
}

// Get returns one volume: of the driver that it is known to be of, else of the first that has it, which
// is remembered then.
func (s *Service) Get(ctx context.Context, name string) (Volume, error) {
	unlock, err := s.locks.Lock(ctx, name)
	if err != nil {
		return Volume{}, err
	}
	defer unlock()
	v, _, err := s.find(ctx, name)
	if err != nil {
		return Volume{}, fmt.Errorf("get %s: %w", name, err)
	}
	return v, nil
}

// errNoSuch is dockerd's text, by which scripts know it.
var errNoSuch = errdefs.Errorf(errdefs.ErrNotFound, "no such volume")

func (s *Service) find(ctx context.Context, name string) (Volume, Driver, error) {
	if e, ok := s.book.get(name); ok {
		d, err := s.drivers.Find(ctx, e.Driver)
		if err != nil {
			return Volume{}, nil, fmt.Errorf("error while checking if volume %q exists in driver %q: error looking up volume plugin %s: %w", name, e.Driver, e.Driver, err)
		}
		info, err := d.Get(ctx, name)
		if errors.Is(err, errdefs.ErrNotFound) {
			return Volume{}, nil, errdefs.Join(errNoSuch, s.book.forget(name))
		}
		if err != nil {
			return Volume{}, nil, fmt.Errorf("error while checking if volume %q exists in driver %q: %w", name, d.Name, err)
		}
		return s.shown(d.Name, d.Scope(ctx), named(info, name)), d, nil
	}
	for _, d := range s.drivers.All(ctx) {
		info, err := d.Get(ctx, name)
		if err != nil {
			if !errors.Is(err, errdefs.ErrNotFound) {
				s.log.WarnContext(ctx, "volume not looked for", slog.String("volume", name), slog.String("driver", d.Name), slog.Any("error", err))
			}
			continue
		}
		if err := s.book.put(entry{Name: name, Driver: d.Name}); err != nil {
			return Volume{}, nil, err
		}
		return s.shown(d.Name, d.Scope(ctx), named(info, name)), d, nil
	}
	return Volume{}, nil, errNoSuch
}

// named gives an answer the name that was asked for: some plugins leave it out.
func named(info volume.Info, name string) volume.Info {
	info.Name = name
	return info
}

// Create makes a volume, or returns the one of this name that its driver has already. An empty name is
// made up.
func (s *Service) Create(ctx context.Context, name, driver string, opts, labels map[string]string) (Volume, bool, error) {
	if name == "" {
		b := make([]byte, 32)
		_, _ = rand.Read(b) // it never fails
		name = hex.EncodeToString(b)
	}
	unlock, err := s.locks.Lock(ctx, name)
	if err != nil {
		return Volume{}, false, err
	}
	defer unlock()
	v, made, err := s.create(ctx, name, driver, opts, labels)
	if err != nil {
		return Volume{}, false, fmt.Errorf("create %s: %w", name, err)
	}
	return v, made, nil
}

func (s *Service) create(ctx context.Context, name, driver string, opts, labels map[string]string) (Volume, bool, error) {
	d, err := s.drivers.Find(ctx, driver)
	if err != nil {
		return Volume{}, false, fmt.Errorf("error looking up volume plugin %s: %w", driver, err)
	}
	if e, ok := s.book.get(name); ok && e.Driver != d.Name {
		v, _, err := s.find(ctx, name)
		switch {
		case err == nil:
			return Volume{}, false, errdefs.Errorf(errdefs.ErrExists, "driver '%s' already has volume '%s': volume name must be unique", v.Driver, name)
		case !errors.Is(err, errNoSuch):
			return Volume{}, false, err
		}
	}
	info, err := d.Get(ctx, name)
	made := err != nil
	switch {
	case err == nil, errors.Is(err, errdefs.ErrNotFound):
	case errors.Is(err, errdefs.ErrUnavailable), errors.Is(err, context.DeadlineExceeded), ctx.Err() != nil:
		return Volume{}, false, fmt.Errorf("error while checking if volume %q exists in driver %q: %w", name, d.Name, err)
	}
	if _, ok := s.book.get(name); made || !ok {
		// Before the driver is asked: what it has made is known then, whatever ends us between the two.
		if err := s.book.put(entry{Name: name, Driver: d.Name, Labels: labels, Options: opts}); err != nil {
			return Volume{}, false, err
		}
	}
	if made {
		if err := d.Create(ctx, name, opts); err != nil {
			if !unsure(ctx, err) {
				err = errdefs.Join(err, s.book.forget(name))
			}
			return Volume{}, false, err
		}
		info = volume.Info{}
		if known, err := d.Get(ctx, name); err == nil {
			info = known
		}
	}
	return s.shown(d.Name, d.Scope(ctx), named(info, name)), made, nil
}

// unsure tells whether a driver may have done what it did not answer to.
func unsure(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, errdefs.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded)
}

// Remove removes a volume. By force, one that is not there is no error, and what is remembered of one whose driver
// fails, or is there no more, is forgotten.
func (s *Service) Remove(ctx context.Context, name string, force bool) error {
	unlock, err := s.locks.Lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	_, d, err := s.find(ctx, name)
	if errors.Is(err, errdefs.ErrNotFound) && force {
		return s.book.forget(name) // it, or its driver, is not there
	}
	if err != nil {
		return fmt.Errorf("get %s: %w", name, err)
	}
	err = d.Remove(ctx, name)
	if err == nil || errors.Is(err, errdefs.ErrNotFound) || force {
		err = errdefs.Join(err, s.book.forget(name))
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}
