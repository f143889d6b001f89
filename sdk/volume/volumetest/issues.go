package volumetest

import (
	"context"
	"errors"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/internal/leaktest"
	"github.com/remora-plugins/remora/sdk/volume"
)

// issues are bugs that users of other plugins lived with for years, one case each, with
// the thread in which they told of it.
func issues() cases {
	return cases{
		// juicedata/docker-volume-juicefs#60: each container of a volume mounted once more
		// on top of the last.
		"MountsAreNotStacked": func(t *testing.T, c Config) {
			p := startPlugin(t, c, nil)
			p.create("one")
			m := p.mount("one", mountID(1))
			before := len(leaktest.MountsBelow(t, p.options.MountRoot))
			for _, n := range []int{1, 1, 2, 3} {
				if got := p.mount("one", mountID(n)); got != m {
					t.Errorf("mounted at %q, and again at %q", m, got)
				}
			}
			if after := len(leaktest.MountsBelow(t, p.options.MountRoot)); after != before {
				t.Errorf("%d mounts, and after four more calls %d", before, after)
			}
			p.mustBeMounted("one", 5)
			for _, n := range []int{1, 2, 3, 1, 1} {
				p.unmount("one", mountID(n))
			}
			p.mustBeMounted("one", 0)
		},
		// rclone/rclone#9853: after a restart the plugin had forgotten what its volumes are,
		// and mounted something else in their place.
		"StateSurvivesRestart": func(t *testing.T, c Config) {
			p := startPlugin(t, c, nil)
			p.create("one")
			write(t, p.mount("one", mountID(1)), "f", "x")
			before := p.mustGet("one")
			p.unmount("one", mountID(1))
			p.restart()
			after := p.mustGet("one")
			if !before.CreatedAt.IsZero() && !after.CreatedAt.Equal(before.CreatedAt) {
				t.Errorf("created at %v, and after a restart at %v", before.CreatedAt, after.CreatedAt)
			}
			mustRead(t, p.mount("one", mountID(2)), "f", "x")
			p.unmount("one", mountID(2))
		},
		// rclone/rclone#7466: mounts that nobody holds any more kept the plugin from
		// starting, or the volume from being mounted.
		"StaleEntryDoesNotBlockStart": func(t *testing.T, c Config) {
			p := startPlugin(t, c, nil)
			p.create("one")
			m := p.mount("one", mountID(1))
			write(t, m, "f", "x")
			p.kill()
			// The mount went while the plugin was dead, and its entry is left.
			if err := p.driver.Unmount(t.Context(), "one", m); err != nil {
				t.Fatal(err)
			}
			p.restart()
			p.activate()
			mustRead(t, p.mount("one", mountID(2)), "f", "x")
			p.handler.Reconcile(t.Context())
			p.mustBeMounted("one", 1)
			p.unmount("one", mountID(2))
			p.mustBeMounted("one", 0)
			p.remove("one")
		},
		// The same, where the volume's data went as well: the entry may be left, and nothing
		// else fails by it.
		"StaleEntryOfALostVolume": func(t *testing.T, c Config) {
			p := startPlugin(t, c, nil)
			p.create("one")
			p.create("two")
			m := p.mount("one", mountID(1))
			p.kill()
			if err := errors.Join(p.driver.Unmount(t.Context(), "one", m), p.driver.Remove(t.Context(), "one")); err != nil {
				t.Fatal(err)
			}
			p.restart()
			p.activate()
			p.handler.Reconcile(t.Context())
			p.mount("two", mountID(2))
			p.unmount("two", mountID(2))
			p.create("one")
			p.mount("one", mountID(3))
			p.unmount("one", mountID(3))
		},
		// juicedata/docker-volume-juicefs#64: the mount had gone, and containers wrote to
		// the host's disk below the mountpoint.
		"VanishedMountIsNoticed": func(t *testing.T, c Config) {
			p := startPlugin(t, c, nil)
			p.create("one")
			m := p.mount("one", mountID(1))
			write(t, m, "f", "x")
			if !vanish(t, m) {
				t.Skip("deviates: nothing is mounted at the mountpoint, so nothing can vanish")
			}
			_, err := p.volumes.Path(t.Context(), "one")
			mustBeClass(t, "Path of what is no mount any more", err, errdefs.ErrUnavailable)
			p.mustGet("one")
			again, err := p.volumes.Mount(t.Context(), "one", mountID(2))
			if err != nil { // as where the data has gone with its mount
				if !errors.Is(err, errdefs.ErrNotFound) && !errors.Is(err, errdefs.ErrUnavailable) {
					t.Errorf("Mount of what is no mount any more: %v", err)
				}
				p.unmount("one", mountID(1))
				return
			}
			if !isMount(t, again) {
				t.Errorf("Mount gives out %s, on which nothing is mounted any more", again)
			}
			mustRead(t, again, "f", "x")
			p.mustBeMounted("one", 2)
			p.unmount("one", mountID(1))
			mustRead(t, m, "f", "x")
			p.unmount("one", mountID(2))
			p.mustBeMounted("one", 0)
		},
		// juicedata/docker-volume-juicefs pull request 63: a volume that was never mounted
		// could not be removed.
		"RemoveNeverMounted": func(t *testing.T, c Config) {
			p := startPlugin(t, c, nil)
			p.create("one")
			p.remove("one")
			p.mustBeGone("one")
			p.create("two")
			p.restart()
			p.remove("two")
			p.mustBeGone("two")
		},
		// An engine takes each error of Get for the end of the volume, forgets it, and loses
		// its labels. So there is none while the storage is out of reach.
		"GetNeverSaysGoneForUnreachable": func(t *testing.T, c Config) {
			p := startPlugin(t, c, nil)
			p.create("one")
			for _, cause := range []error{
				errdefs.Errorf(errdefs.ErrUnavailable, "storage is out of reach"), errors.New("input/output error"), context.DeadlineExceeded,
			} {
				p.faults.inject(func(context.Context, string, string) error { return cause })
				p.mustGet("one")
				if got := p.list(); !slices.Equal(got, []string{"one"}) {
					t.Errorf("List while the storage is out of reach: %q", got)
				}
				if _, err := p.volumes.Path(t.Context(), "one"); err != nil {
					t.Errorf("Path while the storage is out of reach: %v", err)
				}
				for _, body := range []string{`{"Name":"unknown"}`, ""} { // the second is how the engine repeats the first
					if a, err := p.send(http.MethodPost, "Get", body, nil); err == nil {
						t.Errorf("Get of an unknown volume while the storage is out of reach was answered with %d %q", a.status, a.body)
					}
				}
				if err := p.handler.RefreshNow(t.Context()); err == nil {
					t.Error("RefreshNow succeeds while the storage is out of reach")
				}
				p.mustGet("one")
				p.faults.inject(nil)
				p.mustGet("one")
				p.mustBeGone("unknown")
			}
		},
		// The same, when the storage is out of reach as the plugin starts.
		"StartWithoutStorage": func(t *testing.T, c Config) {
			p := startPlugin(t, c, nil)
			p.create("one")
			away := &faults{Driver: p.driver}
			away.inject(func(context.Context, string, string) error {
				return errdefs.Errorf(errdefs.ErrUnavailable, "out of reach")
			})
			p.kill()
			driver := p.driver
			p.driver = away.wrap()
			p.start()
			_, err := p.volumes.Get(t.Context(), "one")
			mustBeClass(t, "Get before the storage was heard of", err, errdefs.ErrUnavailable)
			if _, err := p.volumes.List(t.Context()); err == nil {
				t.Error("List before the storage was heard of says that there is nothing")
			}
			away.inject(nil)
			if err := p.handler.RefreshNow(t.Context()); err != nil {
				t.Fatal(err)
			}
			p.mustGet("one")
			p.driver = driver
		},
		// A password that came as an option stood in the error that "docker volume create"
		// printed, and in the log.
		"PasswordIsNotInErrors": func(t *testing.T, c Config) {
			var log strings.Builder
			p := startPlugin(t, c, func(o *volume.Options) { o.Logger = logTo(&log) })
			hidden := func(what string, err error) {
				t.Helper()
				mustBeClass(t, what, err, errdefs.ErrDenied)
				if err == nil || strings.Contains(err.Error(), "s3cr3t") || strings.Contains(log.String(), "s3cr3t") {
					t.Errorf("%s: a secret is in the error or in the log: %v", what, err)
				}
				if err != nil && !strings.Contains(err.Error(), "exit status 1") {
					t.Errorf("%s: more than the secret has gone from the error: %v", what, err)
				}
			}
			const secret = `s3cr3t "w\ord`
			for _, key := range []string{"password", "PASS", "secret_key", "sas-token"} {
				p.faults.inject(func(context.Context, string, string) error {
					return errdefs.Errorf(errdefs.ErrDenied, "login with %s: exit status 1: argument %q", secret, secret)
				})
				hidden("Create with option "+key, p.volumes.Create(t.Context(), "one", map[string]string{key: secret}))
			}
			// docker/cli#2802: one option had all of those of mount(8) in it, and the command
			// that failed was shown whole, by each verb that ran it.
			p.faults.inject(nil)
			p.create("one")
			p.mount("one", mountID(1))
			for o, shown := range map[string]string{
				"username=u,password=s3cr3t": "login of s3cr3t",
				"//u:s3cr3t@host/share":      "share of s3cr3t",
				"":                           "mount -o username=u,password=s3cr3t,ro //host/share",
				"ro":                         "mount //u:s3cr3t@host/share",
				"rw":                         "GET https://u:s3cr3t@host/?token=s3cr3t",
			} {
				p.faults.inject(func(context.Context, string, string) error {
					return errdefs.Errorf(errdefs.ErrDenied, "%s: exit status 1", shown)
				})
				hidden("Create: "+shown, p.volumes.Create(t.Context(), "new", map[string]string{"o": o, "type": "cifs"}))
				if strings.Contains(o, "s3cr3t") {
					continue // only Create is told of the options
				}
				p.faults.inject(func(_ context.Context, verb, _ string) error {
					if verb == "create" {
						return nil
					}
					return errdefs.Errorf(errdefs.ErrDenied, "%s: exit status 1", shown)
				})
				_, err := p.volumes.Mount(t.Context(), "new", mountID(1))
				hidden("Mount: "+shown, err)
				hidden("Unmount: "+shown, p.volumes.Unmount(t.Context(), "one", mountID(1)))
				hidden("Remove: "+shown, p.volumes.Remove(t.Context(), "new"))
				_, err = p.handler.Get(t.Context(), "unknown")
				hidden("Get: "+shown, err)
				hidden("RefreshNow: "+shown, p.handler.RefreshNow(t.Context()))
				p.faults.inject(nil)
				p.mount("one", mountID(1))
			}
			p.faults.inject(nil)
			p.unmount("one", mountID(1))
			// And what the driver itself has to say about options it does not like.
			err := p.volumes.Create(t.Context(), "one", map[string]string{noSuchOption + "-password": "s3cr3t"})
			if err == nil || strings.Contains(err.Error(), "s3cr3t") {
				t.Errorf("an unknown option's secret: %v", err)
			}
		},
		// A failed Unmount is only logged by an engine, which keeps the ID and starts the
		// container with it again.
		"FailedUnmountIsNoEnd": func(t *testing.T, c Config) {
			p := startPlugin(t, c, nil)
			p.create("one")
			write(t, p.mount("one", mountID(1)), "f", "x")
			p.faults.inject(func(_ context.Context, verb, _ string) error {
				if verb == "unmount" {
					return errdefs.Errorf(errdefs.ErrUnavailable, "device is busy")
				}
				return nil
			})
			if err := p.volumes.Unmount(t.Context(), "one", mountID(1)); err == nil {
				t.Error("an Unmount that failed says that it did not")
			}
			p.faults.inject(nil)
			mustRead(t, p.mount("one", mountID(1)), "f", "x")
			p.unmount("one", mountID(1))
			p.mustBeMounted("one", 0)
		},
		// And a failed Mount has no Unmount.
		"FailedMountLeavesNothing": func(t *testing.T, c Config) {
			p := startPlugin(t, c, nil)
			p.create("one")
			p.faults.inject(func(_ context.Context, verb, _ string) error {
				if verb == "mount" {
					return errdefs.Errorf(errdefs.ErrUnavailable, "no route to host")
				}
				return nil
			})
			for range 2 {
				_, err := p.volumes.Mount(t.Context(), "one", mountID(1))
				mustBeClass(t, "Mount", err, errdefs.ErrUnavailable)
				p.mustBeMounted("one", 0)
			}
			if left, err := os.ReadDir(p.options.MountRoot); err != nil || len(left) > 0 {
				t.Errorf("a failed Mount left %v: %v", left, err)
			}
			p.faults.inject(nil)
			p.remove("one")
		},
		// A "docker run" with a volume that the image has files for mounts, unmounts and
		// mounts: with Linger the storage is asked once.
		"LingeringMountIsTakenUp": func(t *testing.T, c Config) {
			p := startPlugin(t, c, func(o *volume.Options) { o.Linger = time.Hour })
			p.create("one")
			m := p.mount("one", mountID(1))
			write(t, m, "f", "x")
			p.unmount("one", mountID(1))
			if got := p.mount("one", mountID(2)); got != m {
				t.Errorf("mounted at %q, and again at %q", m, got)
			}
			p.unmount("one", mountID(2))
			if n := p.faults.count("mount"); n != 1 {
				t.Errorf("the driver mounted %d times, want once", n)
			}
			p.remove("one") // which does not wait for the hour
			p.mustBeGone("one")
			p.create("one")
			p.mount("one", mountID(3))
			p.unmount("one", mountID(3))
			p.restart()
			p.handler.Reconcile(t.Context())
			p.mustBeMounted("one", 0)
		},
	}
}
