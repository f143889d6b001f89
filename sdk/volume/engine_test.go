package volume_test

import (
	"context"
	"errors"
	"iter"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/internal/enginetest"
	"github.com/remora-plugins/remora/sdk/volume"
)

// shelf is a driver whose one volume may be out of reach.
type shelf struct {
	away atomic.Bool
	made atomic.Bool
}

func (s *shelf) reach() error {
	if s.away.Load() {
		return errdefs.Errorf(errdefs.ErrUnavailable, "the storage is out of reach")
	}
	return nil
}

func (s *shelf) Create(context.Context, string, map[string]string) error {
	s.made.Store(true)
	return s.reach()
}
func (s *shelf) Remove(context.Context, string) error { return s.reach() }
func (s *shelf) Mount(context.Context, string, string) (string, error) {
	return "", errors.ErrUnsupported
}
func (s *shelf) Unmount(context.Context, string, string) error { return nil }

func (s *shelf) Volumes(context.Context) iter.Seq2[volume.Info, error] {
	return func(yield func(volume.Info, error) bool) {
		if err := s.reach(); err != nil {
			yield(volume.Info{}, err)
		} else if s.made.Load() {
			yield(volume.Info{Name: "kept"}, nil)
		}
	}
}

// A real engine asks for a volume while the plugin, just restarted, cannot reach its
// storage. It must not take that for the volume's end, and lose its labels.
func TestEngineKeepsWhatIsOutOfReach(t *testing.T) {
	testenv.Require(t, testenv.Root, testenv.Dockerd, testenv.DockerCLI)
	t.Parallel()
	host := enginetest.NewHost(t)
	engine := host.Start(t)
	d := &shelf{}
	stop := servePlugin(t, filepath.Join(host.Run, "docker/plugins/shelf.sock"), d)
	if out, err := engine.Docker(t.Context(), "volume", "create", "-d", "shelf", "--label", "of=mine", "kept"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	stop()
	d.away.Store(true)
	stop = servePlugin(t, filepath.Join(host.Run, "docker/plugins/shelf.sock"), d)
	out, err := engine.Docker(t.Context(), "volume", "inspect", "kept")
	if err == nil || strings.Contains(strings.ToLower(out+err.Error()), "no such volume") {
		t.Errorf("inspect while the storage is out of reach: %v: %s", err, out)
	}
	stop()
	d.away.Store(false)
	stop = servePlugin(t, filepath.Join(host.Run, "docker/plugins/shelf.sock"), d)
	out, err = engine.Docker(t.Context(), "volume", "inspect", "kept")
	if err != nil || !strings.Contains(out, `"of": "mine"`) {
		t.Errorf("inspect when it is back: %v: %s", err, out)
	}
	stop()
}

// servePlugin serves d until stop.
func servePlugin(t *testing.T, socket string, d volume.Driver) (stop func()) {
	t.Helper()
	h, err := volume.NewHandler(t.Context(), d, volume.Options{Refresh: -1})
	if err != nil {
		t.Fatal(err)
	}
	l, err := sdk.ListenUnix(sdk.UnixSocket{Path: socket})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- sdk.Serve(ctx, l, h) }()
	return func() {
		cancel()
		if err := errors.Join(<-served, h.Close(context.WithoutCancel(ctx))); err != nil {
			t.Error(err)
		}
	}
}
