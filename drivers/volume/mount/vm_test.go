package mount

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/remote/remotetest"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
	"github.com/remora-plugins/remora/sdk/volume/volumetest"
)

// servers are what the virtual machine can serve and mount.
var kernelServers = []struct {
	name  string
	start func(testing.TB) *kernelServer
	// deviates are the cases of the suite that what is served cannot pass.
	deviates map[string]string
}{
	{"nfs4", func(t testing.TB) *kernelServer { return nfsServer(t, "nfs4", "vers=4.2") }, nil},
	{"nfs3", func(t testing.TB) *kernelServer { return nfsServer(t, "nfs", "vers=3,nolock") }, nil},
	{"cifs", smbServer, map[string]string{
		"NamesAreTakenAsTheyAre":      "names that differ in case alone are one to most servers of SMB",
		"OwnerAndModeAreKept":         "without extensions SMB knows neither",
		"RemoveLeavesWhatLinksLeadTo": "without extensions SMB has no symbolic links",
	}},
}

// TestVMConformance runs the suite on what a kernel mounts by itself.
func TestVMConformance(t *testing.T) {
	testenv.Require(t, testenv.VM)
	for _, tt := range kernelServers {
		t.Run(tt.name, func(t *testing.T) {
			s := tt.start(t)
			deviates := map[string]string{"RemoveDestroysData": "the data is the server's, and to remove a volume only forgets it", "CheckRemoveDestroysData": "as RemoveDestroysData"}
			maps.Copy(deviates, tt.deviates)
			volumetest.Run(t, volumetest.Config{
				New: func(t *testing.T) volume.Driver {
					dir := t.TempDir()
					return pool(t, dir, s.pool(filepath.Base(filepath.Dir(dir))+"-"+filepath.Base(dir)))
				},
				Reopen: func(t *testing.T, d volume.Driver) volume.Driver {
					old := d.(*driver)
					if err := old.Close(); err != nil {
						t.Error(err)
					}
					return pool(t, filepath.Dir(filepath.Dir(filepath.Dir(old.dir))), s.pool(filepath.Base(old.config.Device)))
				},
				Options:    map[string]string{"o": "noatime"},
				Deviates:   deviates,
				BadOptions: map[string]string{"o": "nonsense=1", "type": "ext5"},
			})
		})
	}
}

// TestVMServerGone: the server of a running container's volume ends, or its packets are lost,
// and it comes back. Everybody is told in seconds, no byte goes to the host's disk, and the
// container's own mount heals.
func TestVMServerGone(t *testing.T) {
	testenv.Require(t, testenv.VM)
	for _, tt := range kernelServers {
		t.Run(tt.name, func(t *testing.T) {
			s := tt.start(t)
			l := startLive(t, nil, s.options("v"))
			for i, how := range []struct {
				name string
				cut  func() (mend func())
			}{
				{"ended", func() func() { s.stop(); return s.start }},
				{"silent", func() func() { return s.cut(t) }},
			} {
				if got := l.Inside.Write(t, fmt.Sprintf("before%d", i)); got != "written" {
					t.Fatalf("%s: write before: %s", how.name, got)
				}
				mend := how.cut()
				err := remotetest.Within(t, 10*time.Second, "ping", func() error { return l.Handler.Ping(t.Context()) })
				remotetest.WantErr(t, err, errdefs.ErrUnavailable, `volume "v": `)
				err = remotetest.Within(t, 10*time.Second, "mount", func() error { _, err := l.driver.Mount(t.Context(), "v", l.At); return err })
				remotetest.WantErr(t, err, errdefs.ErrUnavailable, "127.0.0.1")
				began := time.Now()
				got := l.Inside.Write(t, "lost")
				t.Logf("%s: after %v a write of the container: %s", how.name, time.Since(began).Round(time.Second), got)
				if got == "written" || time.Since(began) > time.Minute {
					t.Errorf("%s: a write to a server that is gone: %s", how.name, got)
				}
				l.NothingBelow(t)
				mend()
				name := fmt.Sprintf("after%d", i)
				remotetest.WaitFor(t, "the container writes again", func() bool { return l.Inside.Write(t, name) == "written" })
				if b, err := os.ReadFile(filepath.Join(s.dir, "v", name)); err != nil || string(b) != "x\n" {
					t.Errorf("%s: on the server is %q, %v", how.name, b, err)
				}
				if err := l.Handler.Ping(t.Context()); err != nil {
					t.Errorf("%s: ping after: %v", how.name, err)
				}
				l.NothingBelow(t)
			}
			if got := l.Inside.Sh(t, `d=$PWD; cd / && umount -i "$d" && echo ok`); got != "ok" {
				t.Error(got)
			}
			if err := l.Handler.Unmount(t.Context(), "v", "1"); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestVMCredentials: the password of a share is in files for root alone, and a wrong one is a
// clear error.
func TestVMCredentials(t *testing.T) {
	s := smbServer(t)
	d := pool(t, t.TempDir(), nil)
	create(t, d, "v", s.options("v"))
	if _, err := remotetest.MountAt(t, d, "v"); err != nil {
		t.Fatal(err)
	}
	shown, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range append(shown, "/proc/self/mountinfo", "/proc/mounts", "/proc/fs/cifs/DebugData") {
		if b, err := os.ReadFile(path); !errors.Is(err, fs.ErrNotExist) && strings.Contains(string(b), "horse") {
			t.Errorf("%s shows the password", path)
		}
	}
	held := 0
	for _, top := range []string{d.dir, d.run} {
		err := filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			if b, err := os.ReadFile(path); err != nil || !strings.Contains(string(b), "horse") {
				return err
			}
			held++
			if fi, err := e.Info(); err != nil || fi.Mode().Perm() != 0o600 {
				t.Errorf("%s has mode %v, %v", path, fi.Mode(), err)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if held == 0 {
		t.Error("no file has the password")
	}
	wrong := s.options("wrong")
	wrong["password"] = "not it"
	create(t, d, "wrong", wrong)
	_, err = remotetest.MountAt(t, d, "wrong")
	remotetest.WantErr(t, err, errdefs.ErrDenied, "")
	if strings.Contains(fmt.Sprint(err), "not it") {
		t.Errorf("error %q has the password", err)
	}
}
