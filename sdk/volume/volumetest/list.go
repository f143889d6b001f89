package volumetest

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

func listDirect() cases {
	return cases{
		"VolumesMayBeLeftEarly": func(t *testing.T, c Config) {
			b := newBare(t, c)
			b.create("one")
			b.create("two")
			for range 2 {
				for _, err := range b.Volumes(t.Context()) {
					if err != nil {
						t.Fatal(err)
					}
					break
				}
			}
			b.mustHave("one", "two")
		},
		"VolumesHeedsItsContext": func(t *testing.T, c Config) {
			b := newBare(t, c)
			b.create("one")
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			n, failed := 0, false
			for _, err := range b.Volumes(ctx) {
				n++
				failed = failed || err != nil
			}
			// Too late to stop is right; a part that passes for the whole is not.
			if n != 1 && !failed {
				t.Errorf("a cancelled Volumes yielded %d of 1 volumes and no error", n)
			}
		},
		"InfoIsFitToShow": func(t *testing.T, c Config) {
			b := newBare(t, c)
			before := time.Now().Add(-time.Minute)
			b.create("one")
			for range 2 {
				for info, err := range b.Volumes(t.Context()) {
					if err != nil {
						t.Fatal(err)
					}
					if !info.CreatedAt.IsZero() && (info.CreatedAt.Before(before) || info.CreatedAt.After(time.Now().Add(time.Minute))) {
						t.Errorf("created at %v, now it is %v", info.CreatedAt, time.Now())
					}
					if _, err := json.Marshal(info.Status); err != nil {
						t.Errorf("Status is not fit for JSON: %v", err)
					}
				}
				p := b.mount("one")
				b.unmount("one", p)
			}
		},
		"InspectAgreesWithVolumes": func(t *testing.T, c Config) {
			b := newBare(t, c)
			i, ok := b.Driver.(volume.Inspector)
			if !ok {
				t.Skip("deviates: the driver is no Inspector, which it need not be")
			}
			b.create("one")
			for range 2 {
				got, err := i.Inspect(t.Context(), "one")
				if err != nil {
					t.Fatalf("Inspect: %v", err)
				}
				for want, err := range b.Volumes(t.Context()) {
					if err != nil || got.Name != want.Name || got.Mountpoint != want.Mountpoint || !got.CreatedAt.Equal(want.CreatedAt) {
						t.Errorf("Inspect says %+v, Volumes %+v, %v", got, want, err)
					}
				}
				_, err = i.Inspect(t.Context(), "absent")
				mustBeClass(t, "Inspect of a volume that does not exist", err, errdefs.ErrNotFound)
			}
		},
		"ScopeIsOneOfTwo": func(t *testing.T, c Config) {
			if s, ok := newBare(t, c).Driver.(volume.Scoper); ok && s.Scope() != "local" && s.Scope() != "global" {
				t.Errorf("scope %q", s.Scope())
			}
		},
		"PingAnswers": func(t *testing.T, c Config) {
			if p, ok := newBare(t, c).Driver.(volume.Pinger); ok {
				for range 2 {
					if err := p.Ping(t.Context()); err != nil {
						t.Errorf("Ping of storage that is there: %v", err)
					}
				}
			}
		},
	}
}

func listWire() cases {
	return cases{
		"ListAndGet": func(t *testing.T, c Config) {
			p := startPlugin(t, c, nil)
			if got := p.list(); len(got) != 0 {
				t.Errorf("List before anything: %q", got)
			}
			for _, name := range []string{"two", "one", "three"} {
				p.create(name)
				p.mustGet(name)
			}
			want := []string{"one", "three", "two"}
			for range 2 {
				if got := p.list(); !slices.Equal(got, want) {
					t.Errorf("List: %q, want %q", got, want)
				}
			}
			p.mustBeGone("four")
			// What the engine shows is what the storage says, also after a look at it.
			if err := p.handler.RefreshNow(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := p.list(); !slices.Equal(got, want) {
				t.Errorf("List after a refresh: %q, want %q", got, want)
			}
		},
		"PathOfWhatIsNotMounted": func(t *testing.T, c Config) {
			p := startPlugin(t, c, nil)
			for range 2 {
				_, err := p.volumes.Path(t.Context(), "absent")
				mustBeClass(t, "Path of a volume that does not exist", err, errdefs.ErrNotFound)
			}
			p.create("one")
			path, err := p.volumes.Path(t.Context(), "one")
			if err != nil {
				t.Errorf("Path of a volume that is not mounted: %v", err)
			}
			if path != "" {
				mustBeDirectory(t, path)
			}
		},
		"VolumesMadeElsewhereAreSeen": func(t *testing.T, c Config) {
			p := startPlugin(t, c, nil)
			if err := p.driver.Create(t.Context(), "one", clone(c.Options)); err != nil {
				t.Fatal(err)
			}
			p.mustGet("one")
			if err := p.driver.Remove(t.Context(), "one"); err != nil {
				t.Fatal(err)
			}
			if err := p.handler.RefreshNow(t.Context()); err != nil {
				t.Fatal(err)
			}
			p.mustBeGone("one")
		},
		"ScopeIsTold": func(t *testing.T, c Config) {
			p := startPlugin(t, c, nil)
			want := "local"
			if s, ok := p.driver.(volume.Scoper); ok {
				want = s.Scope()
			}
			for range 2 {
				if got, err := p.volumes.Scope(t.Context()); err != nil || got != want {
					t.Errorf("scope %q, %v, want %q", got, err, want)
				}
			}
		},
		"GlobalScopeIsTold": func(t *testing.T, c Config) {
			// What an engine reads is one of two words, whatever a driver says.
			driver := c.New
			for says, want := range map[string]string{"global": "global", "local": "local", "": "local", "Global": "local", "swarm": "local"} {
				c.New = func(t *testing.T) volume.Driver { return scoped{driver(t), says} }
				p := startPlugin(t, c, nil)
				for range 2 {
					if got, err := p.volumes.Scope(t.Context()); err != nil || got != want {
						t.Errorf("scope of a driver that says %q: %q, %v, want %q", says, got, err, want)
					}
				}
				a, err := p.send(http.MethodPost, "Capabilities", "", nil)
				if err != nil || a.body != `{"Capabilities":{"Scope":"`+want+`"},"Err":""}`+"\n" {
					t.Errorf("capabilities of a driver that says %q: %q, %v", says, a.body, err)
				}
				p.kill()
			}
		},
		"PingTellsOfTheStorage": func(t *testing.T, c Config) {
			p := startPlugin(t, c, func(o *volume.Options) { o.ShortTimeout = 50 * time.Millisecond })
			ping := func() error { return p.handler.Ping(t.Context()) }
			if err := ping(); err != nil {
				t.Errorf("Ping of storage that is there: %v", err)
			}
			if _, ok := p.driver.(volume.Pinger); !ok {
				return // what was listed is taken to be there
			}
			p.faults.inject(func(context.Context, string, string) error {
				return errdefs.Errorf(errdefs.ErrUnavailable, "out of reach")
			})
			mustBeClass(t, "Ping of storage that is out of reach", ping(), errdefs.ErrUnavailable)
			p.faults.inject(func(context.Context, string, string) error { panic("in the driver") })
			if ping() == nil {
				t.Error("Ping in which the driver panics succeeds")
			}
			release := hang(t, p.faults, func(verb, _ string) bool { return verb == "ping" })
			mustBeClass(t, "Ping of storage that hangs", ping(), context.DeadlineExceeded)
			release.open()
			p.faults.inject(nil)
			eventually(t, "the storage is there again", func() bool { return ping() == nil })
		},
		"ErrorsAreStatus500": func(t *testing.T, c Config) {
			p := startPlugin(t, c, nil)
			for method, body := range map[string]string{
				"Get": `{"Name":"absent"}`, "Path": `{"Name":"absent"}`, "Mount": `{"Name":"absent","ID":"x"}`, "Create": `{"Name":"../x"}`,
			} {
				a, err := p.send(http.MethodPost, method, body, nil)
				var e struct{ Err string }
				if err != nil || a.status != http.StatusInternalServerError || json.Unmarshal([]byte(a.body), &e) != nil || e.Err == "" ||
					strings.ContainsAny(e.Err, "\r\n") {
					t.Errorf("%s: %d %q, %v, want 500 and one line in Err", method, a.status, a.body, err)
				}
			}
		},
	}
}
