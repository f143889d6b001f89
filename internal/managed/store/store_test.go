package store

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/remora-plugins/remora/internal/managed/settings"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func opened(t testing.TB, dir string) *Store {
	t.Helper()
	testenv.Require(t, testenv.Root)
	s := must[*Store](t)(Open(dir, slog.New(slog.NewTextHandler(t.Output(), nil))))
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// file is an entry of a tar: a header with what is mostly wanted, and content.
type file struct {
	tar.Header
	content string
}

func reg(name, content string) file {
	return file{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, content}
}

func dir(name string) file {
	return file{tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}, ""}
}

func link(name, to string) file {
	return file{tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to, Mode: 0o777}, ""}
}

func hard(name, to string) file {
	return file{tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to}, ""}
}

func special(flag byte, name string) file {
	return file{tar.Header{Typeflag: flag, Name: name, Mode: 0o644, Devmajor: 1, Devminor: 3}, ""}
}

func archive(t testing.TB, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		f.Size = int64(len(f.content))
		check(t, w.WriteHeader(&f.Header))
		_ = must[int](t)(w.Write([]byte(f.content)))
	}
	check(t, w.Close())
	return b.Bytes()
}

func zipped(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_ = must[int](t)(w.Write(data))
	check(t, w.Close())
	return b.Bytes()
}

const config = `{"description":"%s","entrypoint":["/p"],"propagatedMount":"/mnt","interface":{"types":["docker.volumedriver/1.0"],"socket":"p.sock"},"env":[{"name":"E","settable":["value"],"value":"%s"}]}`

// bundle is what "plugin create" sends.
func bundle(t testing.TB, what string, files ...file) []byte {
	t.Helper()
	all := []file{reg("config.json", fmt.Sprintf(config, what, what)), dir("rootfs")}
	for _, f := range files {
		f.Name = "rootfs/" + f.Name
		if f.Typeflag == tar.TypeLink {
			f.Linkname = "rootfs/" + f.Linkname
		}
		all = append(all, f)
	}
	return archive(t, all...)
}

// pulled adds the blobs of a plugin as a pull does.
func pulled(t testing.TB, s *Store, what string, layers ...[]byte) Image {
	t.Helper()
	raw := fmt.Appendf(nil, config, what, what)
	img := Image{Config: describe(MediaTypeConfig, raw)}
	check(t, s.Add(t.Context(), bytes.NewReader(raw), img.Config))
	for _, l := range layers {
		d := describe(MediaTypeLayerGzip, l)
		check(t, s.Add(t.Context(), bytes.NewReader(l), d))
		img.Layers = append(img.Layers, d)
	}
	m := must[[]byte](t)(BuildManifest(img.Config, img.Layers))
	img.Manifest = describe(MediaTypeManifest, m)
	check(t, s.Add(t.Context(), bytes.NewReader(m), img.Manifest))
	return img
}

// tree returns all that is below a directory, as strings that say what each is.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := os.Lstat(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		st := fi.Sys().(*syscall.Stat_t)
		text := fmt.Sprintf("%v %d:%d", fi.Mode(), st.Uid, st.Gid)
		switch {
		case fi.Mode().IsRegular():
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text += fmt.Sprintf(" links %d at %d %q", st.Nlink, fi.ModTime().Unix(), b)
		case fi.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			text += " -> " + to
		}
		out[name] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// tidied says that a store has nothing in the making, and no blob but those of its plugins.
func tidied(t testing.TB, s *Store) {
	t.Helper()
	for _, d := range []string{ingestDir, tempDir} {
		if left := must[[]os.DirEntry](t)(os.ReadDir(s.path(d))); len(left) > 0 {
			t.Errorf("%s has %v", d, left)
		}
	}
	used := map[string]bool{}
	for _, r := range s.Records() {
		for _, d := range r.blobs() {
			if !s.Has(d) {
				t.Errorf("plugin %s lacks %s", r.Plugin.Name, d)
			}
			used[d.Encoded()] = true
		}
	}
	for _, e := range must[[]os.DirEntry](t)(os.ReadDir(s.path(blobDir))) {
		if !used[e.Name()] {
			t.Errorf("blob %s is of no plugin", e.Name())
		}
	}
}

func wants(t testing.TB, err, class error, text string) {
	t.Helper()
	if err == nil || !errors.Is(err, class) || !strings.Contains(err.Error(), text) || strings.Contains(err.Error(), "\n") {
		t.Errorf("error is %v, want %v with %q", err, class, text)
	}
}

func TestLifeOfAPlugin(t *testing.T) {
	where := t.TempDir() + "/managed"
	s := opened(t, where)
	r := must[Record](t)(s.Create(t.Context(), "a/b:1", bytes.NewReader(bundle(t, "one", reg("p", "program")))))
	if st := must[os.FileInfo](t)(os.Stat(where)); st.Mode().Perm() != 0o700 {
		t.Errorf("anybody may look into it: %v", st.Mode())
	}
	if len(r.Plugin.ID) != 64 || r.Plugin.Name != "a/b:1" || r.Plugin.PluginReference != "a/b:1" || r.Plugin.Enabled || r.Plugin.Settings.Env[0] != "E=one" {
		t.Errorf("%+v", r.Plugin)
	}
	if got := string(must[[]byte](t)(os.ReadFile(s.Rootfs(r) + "/p"))); got != "program" {
		t.Errorf("%q", got)
	}
	r.Plugin.Enabled, r.Secrets, r.Pinned = true, map[string]string{"PASSWORD": "/run/secret"}, r.Manifest
	r.ConfigDigest, r.Rootfs = "", "" // no business of who saves
	check(t, s.Save(r))
	check(t, os.WriteFile(s.PropagatedMount(r)+"/state", nil, 0o600))
	check(t, s.Close())

	s = opened(t, where)
	again := must[Record](t)(s.Get("a/b:1"))
	if !again.Plugin.Enabled || again.Secrets["PASSWORD"] != "/run/secret" || again.Pinned != r.Manifest || again.Rootfs != "rootfs" || again.ConfigDigest == "" {
		t.Errorf("%+v", again)
	}
	_, err := s.Upgrade(t.Context(), r.Plugin.ID, "x", Image{}, nil, nil)
	wants(t, err, errdefs.ErrInvalid, "plugin a/b:1: digest")
	img := pulled(t, s, "two", zipped(t, archive(t, reg("q", "new"))))
	_, err = s.Upgrade(t.Context(), r.Plugin.ID, "docker.io/a/b:2", img, nil, nil)
	wants(t, err, errdefs.ErrInUse, "plugin must be disabled before upgrading: plugin a/b:1 is enabled")
	again.Plugin.Enabled = false
	check(t, s.Save(again))
	up := must[Record](t)(s.Upgrade(t.Context(), r.Plugin.ID, "docker.io/a/b:2", img, nil, nil))
	check(t, s.Close())

	// The record on the disk is the new one (the engine's was not, until it was saved again).
	s = opened(t, where)
	got := must[Record](t)(s.Get(r.Plugin.ID[:5]))
	if diff := cmp.Diff(up, got); diff != "" {
		t.Error(diff)
	}
	if got.Plugin.PluginReference != "docker.io/a/b:2" || got.ConfigDigest != img.Config.Digest || got.Plugin.Config.Description != "two" || got.Plugin.Settings.Env[0] != "E=two" || got.Secrets["PASSWORD"] == "" {
		t.Errorf("%+v", got)
	}
	if names := must[[]os.DirEntry](t)(os.ReadDir(filepath.Dir(s.Rootfs(got)))); len(names) != 3 {
		t.Errorf("the plugin has %v", names)
	}
	_ = must[os.FileInfo](t)(os.Stat(s.Rootfs(got) + "/q"))
	_ = must[os.FileInfo](t)(os.Stat(s.PropagatedMount(got) + "/state"))
	tidied(t, s)
	check(t, s.Remove(got.Plugin.ID))
	wants(t, s.Remove(got.Plugin.ID), errdefs.ErrNotFound, "not found")
	tidied(t, s)
	if left := must[[]os.DirEntry](t)(os.ReadDir(s.path(pluginDir))); len(left) > 0 {
		t.Errorf("left are %v", left)
	}
}

func TestGet(t *testing.T) {
	s := opened(t, t.TempDir())
	for i, name := range []string{"one:latest", "x/two:v1", "127.0.0.1:5000/three:latest"} {
		_ = must[Record](t)(s.Install(t.Context(), name, name, pulled(t, s, fmt.Sprint(i), zipped(t, archive(t, dir("d")))), nil, nil))
	}
	id := must[Record](t)(s.Get("one")).Plugin.ID
	for _, ok := range []string{"one", "one:latest", "docker.io/library/one", id, id[:20], "x/two:v1", "127.0.0.1:5000/three"} {
		_ = must[Record](t)(s.Get(ok))
	}
	for _, wrong := range []string{"", "two", "x/two", "One", strings.Repeat("0", 64), "one@sha256:" + strings.Repeat("0", 64), "../x", "x/two:v"} {
		_, err := s.Get(wrong)
		wants(t, err, errdefs.ErrNotFound, fmt.Sprintf("plugin %q not found", wrong))
	}
	// Of a name and the beginning of an ID, the name wins.
	other := must[Record](t)(s.Install(t.Context(), id[:8]+":latest", "", pulled(t, s, "n", zipped(t, archive(t, dir("d")))), nil, nil))
	if got := must[Record](t)(s.Get(id[:8])); got.Plugin.ID != other.Plugin.ID {
		t.Errorf("%s is %s", id[:8], got.Plugin.Name)
	}
	shared := map[byte]int{}
	for _, r := range s.Records() {
		shared[r.Plugin.ID[0]]++
	}
	for i := 0; len(shared) == len(s.Records()) && i < 20; i++ { // by then two begin alike
		r := must[Record](t)(s.Install(t.Context(), fmt.Sprintf("n%d:latest", i), "", pulled(t, s, "n", zipped(t, archive(t, dir("d")))), nil, nil))
		shared[r.Plugin.ID[0]]++
	}
	for first, n := range shared {
		if n > 1 {
			_, err := s.Get(string(first))
			wants(t, err, errdefs.ErrInvalid, fmt.Sprintf("multiple plugins found for %q", string(first)))
		}
	}
}

func TestSaveRefuses(t *testing.T) {
	s := opened(t, t.TempDir())
	a := must[Record](t)(s.Create(t.Context(), "a:latest", bytes.NewReader(bundle(t, "a"))))
	b := must[Record](t)(s.Create(t.Context(), "b:latest", bytes.NewReader(bundle(t, "b"))))
	b.Plugin.Name = "a:latest"
	wants(t, s.Save(b), errdefs.ErrExists, "plugin a:latest already exists")
	a.Plugin.Settings.Env = []string{"E=" + strings.Repeat("x", state.MaxSize)}
	wants(t, s.Save(a), errdefs.ErrInvalid, "plugin a:latest: its config and settings are larger than 1024 KiB")
	wants(t, s.Save(Record{}), errdefs.ErrNotFound, "")
	_, err := s.Create(t.Context(), "a:latest", bytes.NewReader(nil))
	wants(t, err, errdefs.ErrExists, "plugin a:latest already exists")
	if got := must[Record](t)(s.Get("a")); got.Plugin.Settings.Env[0] != "E=a" {
		t.Errorf("a refused record is there: %q", got.Plugin.Settings.Env[0][:10])
	}
	a = must[Record](t)(s.Get("a"))
	a.Plugin.Settings.Env[0] = "E=changed"
	if got := must[Record](t)(s.Get("a")); got.Plugin.Settings.Env[0] != "E=a" {
		t.Error("a record shares memory with the store")
	}
}

func TestOpenTwice(t *testing.T) {
	where := t.TempDir()
	s := opened(t, where)
	_, err := Open(where, slog.New(slog.DiscardHandler))
	wants(t, err, errdefs.ErrInUse, "managed plugins in "+where+": another process has them open")
	check(t, s.Close())
	_ = opened(t, where)
}

// A record that cannot be read costs its own plugin and nothing else, and nothing of it is lost.
func TestRecordDamaged(t *testing.T) {
	where := t.TempDir()
	s := opened(t, where)
	a := must[Record](t)(s.Create(t.Context(), "a:latest", bytes.NewReader(bundle(t, "a", reg("p", "p")))))
	b := must[Record](t)(s.Create(t.Context(), "b:latest", bytes.NewReader(bundle(t, "b", reg("p", "p")))))
	check(t, s.Close())
	whole := must[[]byte](t)(os.ReadFile(s.path(recordPath(a.Plugin.ID))))
	check(t, os.WriteFile(s.path(recordPath(a.Plugin.ID)), whole[:len(whole)/2], 0o600))
	s = opened(t, where)
	if all := s.Records(); len(all) != 1 || all[0].Plugin.Name != "b:latest" {
		t.Fatalf("%v", all)
	}
	check(t, s.Remove(b.Plugin.ID))
	check(t, s.GC())
	if !s.Has(a.ConfigDigest) || !s.Has(a.Layers[0].Digest) {
		t.Error("the blobs of the plugin are gone")
	}
	check(t, s.Close())
	check(t, os.WriteFile(s.path(recordPath(a.Plugin.ID)), whole, 0o600)) // mended
	s = opened(t, where)
	_ = must[Record](t)(s.Get("a"))
	tidied(t, s)
}

// Where something is mounted nothing is removed, be it by hand or at the start.
func TestMountsStay(t *testing.T) {
	where := t.TempDir()
	s := opened(t, where)
	r := must[Record](t)(s.Create(t.Context(), "a:latest", bytes.NewReader(bundle(t, "a", dir("mnt")))))
	precious := t.TempDir()
	check(t, os.WriteFile(precious+"/host", []byte("host"), 0o600))
	check(t, syscall.Mount(precious, s.Rootfs(r)+"/mnt", "", syscall.MS_BIND, ""))
	mounted := s.Rootfs(r) + "/mnt"
	t.Cleanup(func() { _ = syscall.Unmount(mounted, syscall.MNT_DETACH) })
	wants(t, s.Remove(r.Plugin.ID), errdefs.ErrInUse, "plugin a:latest: something is mounted on "+mounted)
	_ = must[Record](t)(s.Get("a"))
	check(t, s.Close())
	// As if it had been killed in the middle of a removal.
	check(t, os.Rename(s.path(pluginDir, r.Plugin.ID), s.path(tempDir, "x")))
	mounted = s.path(tempDir, "x", "rootfs", "mnt")
	s = opened(t, where)
	if got := string(must[[]byte](t)(os.ReadFile(precious + "/host"))); got != "host" {
		t.Errorf("%q", got)
	}
	check(t, syscall.Unmount(mounted, 0))
	check(t, s.Close())
	s = opened(t, where)
	tidied(t, s)
	_ = must[os.FileInfo](t)(os.Stat(precious + "/host"))
}

// Blobs that a push needs stay, whatever is removed: layers of pulled plugins, and manifests.
func TestGCKeepsWhatAPushNeeds(t *testing.T) {
	s := opened(t, t.TempDir())
	layers := [][]byte{zipped(t, archive(t, reg("a", "1"))), archive(t, reg("b", "2"))}
	img := pulled(t, s, "pulled", layers...)
	img.Layers[1].MediaType = ocispec.MediaTypeImageLayer
	r := must[Record](t)(s.Install(t.Context(), "pulled:latest", "docker.io/library/pulled:latest", img, nil, nil))
	other := must[Record](t)(s.Create(t.Context(), "b:latest", bytes.NewReader(bundle(t, "b"))))
	check(t, s.Remove(other.Plugin.ID))
	check(t, s.GC())
	tidied(t, s)
	got, raw, err := s.Image(must[Record](t)(s.Get("pulled")))
	check(t, err)
	if got.Manifest.Digest != img.Manifest.Digest || !bytes.Contains(raw, []byte(img.Layers[1].Digest)) {
		t.Errorf("%+v", got)
	}
	for _, l := range got.Layers {
		if !s.Has(l.Digest) {
			t.Errorf("layer %s is gone", l.Digest)
		}
	}
	if r.Layers[1].MediaType != ocispec.MediaTypeImageLayer {
		t.Errorf("%+v", r.Layers)
	}
}

func TestHold(t *testing.T) {
	s := opened(t, t.TempDir())
	one, two := s.Hold(), s.Hold()
	img := pulled(t, s, "x", zipped(t, archive(t, dir("d"))))
	check(t, s.GC())
	one()
	one() // once is enough
	other := must[Record](t)(s.Create(t.Context(), "b:latest", bytes.NewReader(bundle(t, "b"))))
	check(t, s.Remove(other.Plugin.ID))
	if !s.Has(img.Layers[0].Digest) {
		t.Fatal("a blob that somebody holds is gone")
	}
	two()
	tidied(t, s)
	if s.Has(img.Layers[0].Digest) {
		t.Error("what failed left a blob")
	}
}

func TestInstallRefuses(t *testing.T) {
	s := opened(t, t.TempDir())
	fine := zipped(t, archive(t, dir("d")))
	for what, tt := range map[string]struct {
		img    Image
		change func(*Record) error
		class  error
		text   string
	}{
		"lost blob":      {Image{Config: ocispec.Descriptor{Digest: describe("", nil).Digest}}, nil, errdefs.ErrNotFound, "blob sha256:e3b0"},
		"no tar":         {pulled(t, s, "a", zipped(t, []byte(strings.Repeat("x", 2000)))), nil, errdefs.ErrInvalid, "failed to read from tar: archive/tar: invalid tar header"},
		"cut off":        {pulled(t, s, "a", zipped(t, archive(t, reg("a", strings.Repeat("x", 2000)))[:1024])), nil, errdefs.ErrInvalid, "the archive is cut off"},
		"cut off by zip": {pulled(t, s, "a", fine[:len(fine)-6]), nil, errdefs.ErrInvalid, "the archive is cut off"},
		"change":         {pulled(t, s, "a", fine), func(*Record) error { return errdefs.ErrDenied }, errdefs.ErrDenied, ""},
		"too large":      {pulled(t, s, "a", fine), func(r *Record) error { r.Plugin.Name = strings.Repeat("x", 2<<20); return nil }, errdefs.ErrInvalid, "larger than 1024 KiB"},
	} {
		t.Run(what, func(t *testing.T) {
			_, err := s.Install(t.Context(), "x:latest", "", tt.img, tt.change, nil)
			wants(t, err, tt.class, tt.text)
			if _, err := s.Get("x"); err == nil {
				t.Error("it is there")
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Install(ctx, "x:latest", "", pulled(t, s, "a", fine), nil, nil)
	wants(t, err, context.Canceled, "")
	check(t, s.GC())
	tidied(t, s)
	big := fmt.Sprintf(config, strings.Repeat("x", settings.MaxSize), "")
	_, err = s.Create(t.Context(), "x:latest", bytes.NewReader(archive(t, dir("rootfs"), reg("config.json", big))))
	wants(t, err, errdefs.ErrInvalid, "failed to read config.json: it is larger than 256 KiB")
	tidied(t, s)
}
