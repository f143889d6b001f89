package store

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/managed/settings"
	"github.com/remora-plugins/remora/internal/testenv"
)

// childEnv makes the test binary a process that works on the store that it names, until it is killed.
const childEnv = "STORE_TEST_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		work := child
		if verb := os.Getenv(verbEnv); verb != "" {
			work = func(dir string) error { return childVerb(dir, verb) }
		}
		if err := work(dir); err != nil {
			panic(err)
		}
		os.Exit(0)
	}
	os.Exit(testenv.Main(m))
}

// child does everything that there is to do, again and again, and says when it begins.
func child(dir string) error {
	s, err := Open(dir, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		return err
	}
	_, _ = os.Stdout.WriteString("go\n") // the parent notices otherwise
	ctx := context.Background()
	for i := 0; ; i++ {
		for _, step := range []func(context.Context, *Store, int) error{childCreate, childInstall, childUpgrade, childSave, childRemove} {
			if err := step(ctx, s, i); err != nil {
				return err
			}
			_, _ = os.Stdout.WriteString(".") // likewise
		}
	}
}

// content is of what a plugin of a version consists.
func content(version string) []file {
	files := []file{reg("version", version), dir("d")}
	for i := range 20 {
		files = append(files, reg(fmt.Sprintf("d/%d", i), version+strings.Repeat("x", i*100)))
	}
	return files
}

func childCreate(ctx context.Context, s *Store, i int) error {
	version := fmt.Sprintf("created-%d-%d", os.Getpid(), i)
	var failed failing
	_, err := s.Create(ctx, fmt.Sprintf("c%d:latest", i%3), bytes.NewReader(bundle(&failed, version, content(version)...)))
	if err != nil && s.Free(fmt.Sprintf("c%d:latest", i%3)) != nil {
		return failed.err // one of an earlier round
	}
	return err
}

func image(ctx context.Context, s *Store, version string) (Image, error) {
	raw := fmt.Appendf(nil, config, version, version)
	var failed failing
	layer := zipped(&failed, archive(&failed, content(version)...))
	img := Image{Config: describe(MediaTypeConfig, raw)}
	img.Layers = append(img.Layers, describe(MediaTypeLayerGzip, layer))
	m, err := BuildManifest(img.Config, img.Layers)
	if err != nil {
		return img, err
	}
	img.Manifest = describe(MediaTypeManifest, m)
	for _, err := range []error{s.Add(ctx, bytes.NewReader(layer), img.Layers[0]), s.Add(ctx, bytes.NewReader(raw), img.Config), s.Add(ctx, bytes.NewReader(m), img.Manifest)} {
		if err != nil {
			return img, err
		}
	}
	return img, failed.err
}

func childInstall(ctx context.Context, s *Store, i int) error {
	defer s.Hold()()
	name := fmt.Sprintf("i%d:latest", i%3)
	if s.Free(name) != nil {
		return nil
	}
	img, err := image(ctx, s, fmt.Sprintf("installed-%d-%d", os.Getpid(), i))
	if err == nil {
		_, err = s.Install(ctx, name, name, img, nil, nil)
	}
	return err
}

func childUpgrade(ctx context.Context, s *Store, i int) error {
	defer s.Hold()()
	all := s.Records()
	img, err := image(ctx, s, fmt.Sprintf("upgraded-%d-%d", os.Getpid(), i))
	if err == nil {
		_, err = s.Upgrade(ctx, all[i%len(all)].Plugin.ID, "upgraded", img, nil, nil)
	}
	return err
}

func childSave(_ context.Context, s *Store, i int) error {
	all := s.Records()
	r := all[i%len(all)]
	var err error
	r.Plugin.Config, r.Plugin.Settings, err = settings.Set(r.Plugin.Config, r.Plugin.Settings, []string{fmt.Sprintf("E=set-%d", i)})
	if err != nil {
		return err
	}
	return s.Save(r)
}

func childRemove(_ context.Context, s *Store, i int) error {
	if all := s.Records(); len(all) > 4 {
		return s.Remove(all[i%len(all)].Plugin.ID)
	}
	return nil
}

// failing is a test for a process that is none.
type failing struct {
	testing.TB
	err error
}

func (f *failing) Helper()           {}
func (f *failing) Fatal(args ...any) { f.err = fmt.Errorf("%v", args); panic(f.err) }

// consistent says that each plugin is of one version alone, and whole.
func consistent(t *testing.T, s *Store) {
	t.Helper()
	if len(s.unknown) > 0 {
		t.Fatalf("records that cannot be read: %v", s.unknown)
	}
	names := map[string]bool{}
	for _, r := range s.Records() {
		version := r.Plugin.Config.Description
		if names[r.Plugin.Name] {
			t.Errorf("two plugins are called %s", r.Plugin.Name)
		}
		names[r.Plugin.Name] = true
		for _, f := range content(version) {
			if f.content == "" {
				continue
			}
			if got, err := os.ReadFile(s.Rootfs(r) + "/" + f.Name); err != nil || string(got) != f.content {
				t.Errorf("plugin %s of version %s: %s is %.40q, %v", r.Plugin.Name, version, f.Name, got, err)
			}
		}
		raw, err := s.ReadBlob(r.ConfigDigest, settings.MaxSize)
		if err != nil || !bytes.Contains(raw, []byte(version)) {
			t.Errorf("plugin %s of version %s: the config is %.60s, %v", r.Plugin.Name, version, raw, err)
		}
		for _, d := range r.blobs() {
			if err := s.verify(t.Context(), d); err != nil {
				t.Errorf("plugin %s: %v", r.Plugin.Name, err)
			}
		}
		if e := r.Plugin.Settings.Env[0]; e != "E="+version && !strings.HasPrefix(e, "E=set-") {
			t.Errorf("plugin %s of version %s: %s", r.Plugin.Name, version, e)
		}
		if entries, err := os.ReadDir(filepath.Dir(s.Rootfs(r))); err != nil || len(entries) != 3 {
			t.Errorf("plugin %s has %v, %v", r.Plugin.Name, entries, err)
		}
	}
	if dirs, err := os.ReadDir(s.path(pluginDir)); err != nil || len(dirs) != len(names) {
		t.Errorf("%d plugins and %v, %v", len(names), dirs, err)
	}
	tidied(t, s)
}

// A process that is killed at any moment leaves each plugin as it was or as it was to be, and
// nothing else.
func TestSoakKilled(t *testing.T) {
	testenv.Require(t, testenv.Root)
	rnd := rand.New(rand.NewPCG(testenv.Seed(t), 0)) //nolint:gosec // chance, and no secret
	where := t.TempDir()
	seen := map[string]bool{}
	rounds := testenv.Rounds(25)
	for i := range rounds {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"="+where)
		var said bytes.Buffer
		cmd.Stderr = &said
		out := must[io.ReadCloser](t)(cmd.StdoutPipe())
		check(t, cmd.Start())
		if n, err := out.Read(make([]byte, 3)); n != 3 || err != nil {
			t.Fatalf("round %d: the child does not begin: %v: %s", i, err, said.String())
		}
		// Another moment each time, and not too early where the machine is slow.
		if _, err := io.ReadFull(out, make([]byte, rnd.IntN(12))); err != nil {
			t.Fatalf("round %d: the child ended: %v: %s", i, err, said.String())
		}
		time.Sleep(time.Duration(rnd.IntN(20_000)) * time.Microsecond)
		check(t, cmd.Process.Kill())
		_ = cmd.Wait() // killed
		if cmd.ProcessState.ExitCode() != -1 {
			t.Fatalf("round %d: the child ended: %s", i, said.String())
		}
		// What it left, before anything is swept.
		for _, dir := range []string{ingestDir, tempDir} {
			if left, err := os.ReadDir(filepath.Join(where, dir)); err == nil && len(left) > 0 {
				seen[dir] = true
			}
		}
		s := must[*Store](t)(Open(where, slog.New(slog.NewTextHandler(t.Output(), nil))))
		consistent(t, s)
		for _, r := range s.Records() {
			seen[strings.SplitN(r.Plugin.Config.Description, "-", 2)[0]] = true
		}
		check(t, s.Close())
		if t.Failed() {
			t.Fatalf("in round %d", i)
		}
	}
	t.Logf("seen after %d kills: %v", rounds, seen)
	if rounds >= 25 && (!seen[tempDir] || !seen["upgraded"] || !seen["created"]) {
		t.Error("no process was killed in the middle of something")
	}
}
