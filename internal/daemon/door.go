package daemon

import (
	"errors"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/remora-plugins/remora/sdk"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// door is the socket of a pool. It stays open while one driver takes the place of another
// behind it: an engine that calls meanwhile waits, and sees no error.
type door struct {
	listener interface {
		net.Listener
		SetDeadline(t time.Time) error
	}
}

// open returns a listener that accepts until it is closed, which leaves the door as it is.
// One may be in use at a time.
func (d *door) open() (net.Listener, error) {
	if err := d.listener.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	return &shift{door: d, over: make(chan struct{})}, nil
}

// close closes the door for good: the socket is removed, unless it is systemd's.
func (d *door) close() error { return d.listener.Close() }

// shift is the time in which one server stands at a door.
type shift struct {
	door *door
	once sync.Once
	over chan struct{}
}

// Accept implements [net.Listener].
func (s *shift) Accept() (net.Conn, error) {
	conn, err := s.door.listener.Accept()
	select {
	case <-s.over:
		if err != nil {
			return nil, net.ErrClosed
		}
	default:
	}
	return conn, err
}

// Close implements [net.Listener].
func (s *shift) Close() (err error) {
	s.once.Do(func() {
		close(s.over)
		err = s.door.listener.SetDeadline(time.Unix(1, 0)) // ends the Accept under way
		if errors.Is(err, net.ErrClosed) {
			err = nil
		}
	})
	return err
}

// Addr implements [net.Listener].
func (s *shift) Addr() net.Addr { return s.door.listener.Addr() }

// newDoor returns the socket that systemd keeps for a pool, or else makes one.
func (d *Daemon) newDoor(name string) (*door, error) {
	path := d.socket(name)
	l := d.inheritedListener(name, path)
	if l == nil {
		var err error
		if l, err = sdk.ListenUnix(sdk.UnixSocket{Path: path, Group: d.boot.Socket.Group, Mode: d.boot.Socket.Mode}); err != nil {
			return nil, err
		}
	}
	door := &door{}
	var ok bool
	if door.listener, ok = l.(interface {
		net.Listener
		SetDeadline(t time.Time) error
	}); !ok {
		return nil, errors.Join(errdefs.Errorf(errdefs.ErrInvalid, "socket %s: not one of streams", l.Addr()), l.Close())
	}
	return door, nil
}

// socket is where the socket of a pool lies, unless systemd has it elsewhere.
func (d *Daemon) socket(name string) string { return filepath.Join(d.boot.PluginDir, name+".sock") }

// inheritedListener takes the socket that systemd keeps for a pool, nil for none: one that
// is named after the pool, or lies where the pool's would.
func (d *Daemon) inheritedListener(name, path string) net.Listener {
	i := slices.IndexFunc(d.inherited, func(l sdk.ActivatedListener) bool {
		return l.Name == name || l.Addr().String() == path
	})
	if i < 0 {
		return nil
	}
	l := d.inherited[i].Listener
	d.inherited = slices.Delete(d.inherited, i, i+1)
	return l
}
