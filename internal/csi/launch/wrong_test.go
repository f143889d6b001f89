package launch

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/remora-plugins/remora/internal/managed/registry/registrytest"
	"github.com/remora-plugins/remora/internal/testenv"
)

// why waits until a driver says why it does not run.
func (l *lab) why(t *testing.T, p *Process) string {
	t.Helper()
	until(t, "an error", func() bool { s := p.State(); return s.Error != "" && s.Status == Waiting && !s.Next.IsZero() })
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	err := p.Ready(ctx)
	wants(t, err, `the CSI driver of pool "fast" does not run: `)
	return err.Error()
}

func TestDriverThatFails(t *testing.T) {
	l := newLab(t)
	k := Keys{Command: []string{os.Args[0]}, Env: []string{"REMORA_TEST_DRIVER=broken"}}
	p := l.start(t, k)
	if why := l.why(t, p); !strings.Contains(why, "exit status 3; its last words: driver of [] | the account is wrong") {
		t.Error(why)
	}
	// It is put right without a restart of the daemon's other pools: by a change of the keys.
	noErr(t, p.Close())
	k.Env = []string{"REMORA_TEST_DRIVER=1", "STATE=" + l.dir + "/state"}
	l.ready(t, l.start(t, k))
}

func TestSecretThatOthersRead(t *testing.T) {
	l := newLab(t)
	noErr(t, os.WriteFile(l.dir+"/token", []byte("s3cret"), 0o644)) //nolint:gosec // that is the mistake
	for env, want := range map[string]string{
		"TOKEN=file:" + l.dir + "/token": "others may read it", "TOKEN=env:REMORA_NO_SUCH": "the daemon's environment has no REMORA_NO_SUCH",
	} {
		p := l.start(t, Keys{Command: []string{os.Args[0]}, Env: []string{env}})
		if why := l.why(t, p); !strings.Contains(why, want) || strings.Contains(why, "s3cret") {
			t.Error(why)
		}
		noErr(t, p.Close())
	}
}

// TestChangedKeys: what a daemon finds running with other keys than its own is started anew, and mounts stay.
func TestChangedKeys(t *testing.T) {
	l := newLab(t)
	k := l.keys(t, Command)
	p := l.start(t, k)
	first := l.ready(t, p)
	v := l.volume(t, p)
	v.up()
	noErr(t, p.Close())
	k.Command = append(slices.Clone(k.Command), "--changed")
	p = l.start(t, k)
	if s := l.ready(t, p); s.Pid == first.Pid {
		t.Error("it was not started anew")
	}
	if !strings.Contains(readFile(t, l.dir+"/state/env"), "--changed") {
		t.Error("the change is not seen")
	}
	if got := readFile(t, v.target+"/file") + readFile(t, l.dir+"/mounts/fuse/file"); got != "of the test"+fuseText {
		t.Errorf("the mounts have %q", got)
	}
	v.p = p
	v.down()
}

// TestImageThatIsNot: what is wrong with an image is said, and tried again without blocking anybody; a new tag replaces what
// was unpacked.
func TestImageThatIsNot(t *testing.T) {
	l := newLab(t)
	testenv.Require(t, testenv.Runc, testenv.Registry)
	r := registrytest.Start(t, registrytest.Options{})
	env := []string{"REMORA_TEST_DRIVER=1", "STATE=/state"}
	name := func(tag string) string { return r.Addr + "/vendor/driver:" + tag }
	began := time.Now()
	p := l.start(t, Keys{Image: name("v1"), Env: env, Binds: hosts})
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("the start took %s", d)
	}
	if why := l.why(t, p); !strings.Contains(why, "error resolving image reference: "+name("v1")) {
		t.Error(why)
	}
	pushImage(t, r.Addr, "v1", ocispec.ImageConfig{Entrypoint: []string{"/driver"}})
	l.ready(t, p) // it came meanwhile
	noErr(t, p.Close())

	pushImage(t, r.Addr, "none", ocispec.ImageConfig{})
	for want, k := range map[string]Keys{
		"says no program to run":              {Image: name("none")},
		"no such file or directory":           {Image: name("v1"), Command: []string{"/nothing"}},
		"there is no such file or directory":  {Image: name("v1"), Binds: []string{l.dir + "/nothing"}},
		"its digest is":                       {Image: r.Addr + "/vendor/driver@sha256:" + strings.Repeat("0", 64)},
		"the daemon lacks CAP_SYS_RESOURCE, ": {Image: name("v1"), Caps: []string{"SYS_RESOURCE"}},
	} {
		if strings.Contains(want, "CAP_") && permitted(ownStatus())&(1<<24) != 0 {
			continue // it has it here
		}
		if strings.Contains(want, "digest") {
			want = "not found"
		}
		p := l.start(t, k)
		if why := l.why(t, p); !strings.Contains(why, want) {
			t.Errorf("%q lacks %q", why, want)
		}
		noErr(t, p.Close())
	}

	pushImage(t, r.Addr, "v2", ocispec.ImageConfig{Entrypoint: []string{"/driver", "v2"}})
	p = l.start(t, Keys{Image: name("v2"), Env: env, Binds: hosts})
	l.ready(t, p)
	lines, err := p.Logs(t.Context(), -1)
	noErr(t, err)
	if !slices.ContainsFunc(lines, func(l Line) bool { return l.Text == "driver of [v2]" }) {
		t.Errorf("its log: %v", lines)
	}
}
