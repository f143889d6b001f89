package backup

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// small mounts a file system of 24 MiB, and returns what makes it larger.
func small(t *testing.T, dir string) (grow func()) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size=24m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return func() {
		if err := syscall.Mount("none", dir, "tmpfs", syscall.MS_REMOUNT, "size=200m"); err != nil {
			t.Fatal(err)
		}
	}
}

// fills fills a repository, and goes on when there is room again.
func fills(t *testing.T, p Place, grow func()) {
	t.Helper()
	if err := Init(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	put(t, dir+"/a", noise(t, 1<<20))
	r := must[*Repository](t)(Open(t.Context(), p))
	must[Backup](t)(r.Create(t.Context(), Request{Pool: "p", Volume: "v", Dir: dir, PointInTime: true}))
	put(t, dir+"/b", noise(t, 64<<20))
	_, err := r.Create(t.Context(), Request{Pool: "p", Volume: "v", Dir: dir, PointInTime: true})
	wants(t, err, errdefs.ErrUnavailable, `repository "near": no space left on device where it lies`)
	if err := r.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if all := must[[]Backup](t)(listed(t, p)); len(all) != 1 {
		t.Errorf("there are %d backups, want the one that is whole", len(all))
	}
	grow()
	b := must[Backup](t)(reopened(t, p).Create(t.Context(), Request{Pool: "p", Volume: "v", Dir: dir, PointInTime: true}))
	restores(t, p, cached, b.ID, dir)
	if v := must[Verified](t)(Verify(t.Context(), p, nil, nil)); v.Backups != 2 || len(v.Damaged) > 0 {
		t.Errorf("with room again: %+v", v)
	}
}

func TestFullSFTP(t *testing.T) {
	testenv.Require(t, testenv.Root, testenv.Sshd)
	p, _, _, _ := sftpPlace(t)
	fills(t, p, small(t, filepath.Dir(p.URL.Path)))
}

// What is restored to where there is no room for it is not an error of the repository, and what is
// written to a repository on a file system that is read-only is one.
func TestRestoreWithoutRoom(t *testing.T) {
	testenv.Require(t, testenv.Root)
	p, dir, to := newPlace(t), t.TempDir(), t.TempDir()+"/to"
	put(t, dir+"/a", noise(t, 32<<20))
	if err := Init(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	r := must[*Repository](t)(Open(t.Context(), p))
	b := must[Backup](t)(r.Create(t.Context(), Request{Pool: "p", Volume: "v", Dir: dir, PointInTime: true}))
	grow := small(t, to)
	_, err := r.Restore(t.Context(), b.ID, to, nil)
	wants(t, err, errdefs.ErrUnavailable, "a: no room for what is restored: no space left on device")
	err = r.RestorePath(t.Context(), b.ID, "a", to, nil)
	wants(t, err, errdefs.ErrUnavailable, "a: no room for what is restored: no space left on device")
	grow()
	mode := func(dir string, flag uintptr) {
		t.Helper()
		if err := syscall.Mount("none", dir, "", syscall.MS_REMOUNT|flag, ""); err != nil {
			t.Fatal(err)
		}
	}
	mode(to, syscall.MS_RDONLY)
	err = r.RestorePath(t.Context(), b.ID, "a", to, nil)
	wants(t, err, errdefs.ErrUnavailable, "the volume cannot be written to: read-only file system")
	mode(to, 0)
	if err := r.RestorePath(t.Context(), b.ID, "a", to, nil); err != nil {
		t.Error(err)
	}
	if err := r.Close(t.Context()); err != nil {
		t.Error(err)
	}

	p2 := newPlace(t)
	small(t, p2.URL.Path)
	if err := Init(t.Context(), p2); err != nil {
		t.Fatal(err)
	}
	r = must[*Repository](t)(Open(t.Context(), p2))
	mode(p2.URL.Path, syscall.MS_RDONLY)
	put(t, dir+"/a", noise(t, 1<<20))
	_, err = r.Create(t.Context(), Request{Pool: "p", Volume: "v", Dir: dir, PointInTime: true})
	wants(t, err, errdefs.ErrUnavailable, `repository "near": read-only file system where it lies`)
	mode(p2.URL.Path, 0)
	if err := r.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// What servers of S3 say in their own words, of which none can be had here: the forms are those
// of Amazon's reference and of MinIO.
func TestS3Refuses(t *testing.T) {
	for _, tt := range []struct {
		name, code, message string
		class               error
		want                string
	}{
		{"skew", "RequestTimeTooSkewed", "The difference between the request time and the server's time is too large.", errdefs.ErrUnavailable, "the clocks of this host and of the server differ too much"},
		{"quota", "XMinioAdminBucketQuotaExceeded", "Bucket quota exceeded", errdefs.ErrUnavailable, "disk quota exceeded where it lies"},
		{"full", "XMinioStorageFull", "Storage backend has reached its minimum free drive threshold. Please delete a few objects to proceed.", errdefs.ErrUnavailable, "no space left on device where it lies"},
		{"denied", "AccessDenied", "Access Denied", errdefs.ErrDenied, "cannot log in: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/xml")
				w.WriteHeader(http.StatusForbidden)
				_, _ = fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code><Message>%s</Message></Error>`, tt.code, tt.message)
			}))
			defer s.Close()
			p := newPlace(t)
			t.Setenv("BACKUP_TEST_KEY", "x")
			p.URL = &url.URL{Scheme: "s3", Host: "bucket"}
			p.S3.Endpoint = must[*url.URL](t)(url.Parse(s.URL))
			p.S3.Region, p.S3.AccessKeyEnv, p.S3.SecretKeyEnv = "us-east-1", "BACKUP_TEST_KEY", "BACKUP_TEST_KEY"
			wants(t, Init(t.Context(), p), tt.class, `repository "near": `+tt.want)
		})
	}
}
