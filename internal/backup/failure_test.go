package backup

import (
	"context"
	"errors"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/config"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

func wants(t *testing.T, err, class error, text string) {
	t.Helper()
	if !errors.Is(err, class) || !strings.Contains(err.Error(), text) || strings.Contains(err.Error(), "\n") {
		t.Errorf("error is %v (%s), want %q", err, errdefs.Name(err), text)
	}
}

func TestOpenErrors(t *testing.T) {
	p := newPlace(t)
	open := func() error {
		r, err := Open(t.Context(), p)
		if err == nil {
			_ = r.Close(t.Context()) // it should not be open
		}
		return err
	}
	wants(t, open(), errdefs.ErrNotFound, `repository "near": directory `+p.URL.Path+" is not there")
	if hints := errdefs.Hints(open()); len(hints) != 1 || !strings.Contains(hints[0], "is that mounted?") || !strings.HasSuffix(hints[0], "remora backup init near") {
		t.Errorf("hints are %q", hints)
	}
	if err := os.Mkdir(p.URL.Path, 0o700); err != nil {
		t.Fatal(err)
	}
	wants(t, open(), errdefs.ErrNotFound, `repository "near": there is none at file://`)
	if left, err := os.ReadDir(p.URL.Path); err != nil || len(left) > 0 {
		t.Errorf("where a disk may be mounted are %v, %v", left, err)
	}
	opened(t, p)
	wants(t, Init(t.Context(), p), errdefs.ErrExists, `there is one already at file://`)
	put(t, p.PasswordFile, "wrong\n")
	wants(t, open(), errdefs.ErrDenied, `repository "near": the password is wrong, or the first block is damaged`)
	put(t, p.PasswordFile, "\n")
	wants(t, open(), errdefs.ErrInvalid, "is empty")
	if err := os.Chmod(p.PasswordFile, 0o640); err != nil {
		t.Fatal(err)
	}
	wants(t, open(), errdefs.ErrDenied, "others may read it (mode 0640)")
	if err := os.Remove(p.PasswordFile); err != nil {
		t.Fatal(err)
	}
	wants(t, open(), errdefs.ErrInvalid, "password_file "+p.PasswordFile+": is not there")
	if hints := errdefs.Hints(open()); len(hints) != 1 || !strings.HasSuffix(hints[0], "chmod 600 "+p.PasswordFile) {
		t.Errorf("hints are %q", hints)
	}
	p.PasswordFile, p.PasswordEnv = "", "BACKUP_TEST_PASSWORD"
	wants(t, open(), errdefs.ErrInvalid, `password_env: the daemon has no variable "BACKUP_TEST_PASSWORD"`)
	t.Setenv(p.PasswordEnv, "secret")
	if err := open(); err != nil {
		t.Errorf("with the password from the environment: %v", err)
	}
}

// A server that is not there is an error in seconds.
func TestUnreachable(t *testing.T) {
	l := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	gone := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	p := newPlace(t)
	t.Setenv("BACKUP_TEST_KEY", "x")
	p.URL = &url.URL{Scheme: "s3", Host: "bucket"}
	p.S3 = config.RepositoryS3{Endpoint: &url.URL{Scheme: "http", Host: gone}, AccessKeyEnv: "BACKUP_TEST_KEY", SecretKeyEnv: "BACKUP_TEST_KEY"}
	started := time.Now()
	_, err := Open(t.Context(), p)
	wants(t, err, errdefs.ErrUnavailable, `repository "near": cannot be reached: dial tcp `+gone+": connect: connection refused")
	p.URL = &url.URL{Scheme: "sftp", Host: gone, User: url.User("me"), Path: "/x"}
	p.SFTP = config.RepositorySFTP{KeyFile: p.PasswordFile, KnownHosts: p.PasswordFile}
	_, err = Open(t.Context(), p)
	wants(t, err, errdefs.ErrUnavailable, "cannot be reached")
	if d := time.Since(started); d > 10*time.Second {
		t.Errorf("it took %s", d)
	}
}

// Nor does one that takes a call and says nothing hold anybody up.
func TestSilentServer(t *testing.T) {
	testenv.Require(t, testenv.Sshd) // for ssh-keygen
	l := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		var held []net.Conn // or they would be closed
		for {
			c, err := l.Accept()
			if err != nil {
				for _, c := range held {
					_ = c.Close()
				}
				return
			}
			held = append(held, c)
		}
	}()
	p := newPlace(t)
	p.login = time.Second
	t.Setenv("BACKUP_TEST_KEY", "x")
	p.URL = &url.URL{Scheme: "s3", Host: "bucket"}
	p.S3 = config.RepositoryS3{Endpoint: &url.URL{Scheme: "http", Host: l.Addr().String()}, AccessKeyEnv: "BACKUP_TEST_KEY", SecretKeyEnv: "BACKUP_TEST_KEY"}
	_, err := Open(t.Context(), p)
	wants(t, err, errdefs.ErrUnavailable, `repository "near": does not answer within 1s`)
	key := filepath.Join(t.TempDir(), "key")
	if out, err := exec.Command("ssh-keygen", "-qt", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v: %s", err, out)
	}
	p.URL = &url.URL{Scheme: "sftp", Host: l.Addr().String(), User: url.User("me"), Path: "/x"}
	p.SFTP = config.RepositorySFTP{KeyFile: key, KnownHosts: key + ".known"}
	put(t, p.SFTP.KnownHosts, "")
	_, err = Open(t.Context(), p)
	wants(t, err, errdefs.ErrUnavailable, `repository "near": does not answer within 1s`)
}

// Half of a blob, as a crash of the server may leave it.
func TestTornBlob(t *testing.T) {
	p := newPlace(t)
	r := opened(t, p)
	dir := t.TempDir()
	put(t, dir+"/a", noise(t, 2<<20))
	b := must[Backup](t)(r.Create(t.Context(), Request{Pool: "p", Volume: "v", Dir: dir}))
	if err := os.Truncate(blobs(t, p, "p")[0], 100); err != nil {
		t.Fatal(err)
	}
	if v := must[Verified](t)(Verify(t.Context(), p, []string{b.ID}, nil)); len(v.Damaged) != 1 {
		t.Errorf("verify finds %+v", v)
	}
	if _, err := reopened(t, p).Restore(t.Context(), b.ID, t.TempDir(), nil); err == nil {
		t.Error("it is restored")
	}
}

func TestFull(t *testing.T) {
	testenv.Require(t, testenv.Root)
	p := newPlace(t)
	if err := os.Mkdir(p.URL.Path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("none", p.URL.Path, "tmpfs", 0, "size=12m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(p.URL.Path, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	r, dir := opened(t, p), t.TempDir()
	put(t, dir+"/a", noise(t, 4<<20))
	small := must[Backup](t)(r.Create(t.Context(), Request{Pool: "p", Volume: "v", Dir: dir, PointInTime: true}))
	want := tree(t, dir)
	put(t, dir+"/b", noise(t, 64<<20))
	started := time.Now()
	_, err := r.Create(t.Context(), Request{Pool: "p", Volume: "v", Dir: dir, PointInTime: true})
	wants(t, err, errdefs.ErrUnavailable, "no space left on device")
	if d := time.Since(started); d > time.Minute {
		t.Errorf("it took %s", d)
	}
	if all := must[[]Backup](t)(reopened(t, p).List(t.Context())); len(all) != 1 {
		t.Errorf("there are %d backups, want the one that is whole", len(all))
	}
	to := t.TempDir()
	must[Backup](t)(reopened(t, p).Restore(t.Context(), small.ID, to, nil))
	same(t, want, tree(t, to))
	if err := syscall.Mount("none", p.URL.Path, "tmpfs", syscall.MS_REMOUNT, "size=200m"); err != nil {
		t.Fatal(err)
	}
	must[Backup](t)(reopened(t, p).Create(t.Context(), Request{Pool: "p", Volume: "v", Dir: dir, PointInTime: true}))
	if v := must[Verified](t)(Verify(t.Context(), p, nil, nil)); v.Backups != 2 || len(v.Damaged) > 0 {
		t.Errorf("with room again: %+v", v)
	}
}

// A backup that nobody wants any more ends soon, and is not there.
func TestCanceled(t *testing.T) {
	r, dir := opened(t, newPlace(t)), t.TempDir()
	put(t, dir+"/a", noise(t, 64<<20))
	ctx, cancel := context.WithCancel(t.Context())
	defer time.AfterFunc(10*time.Millisecond, cancel).Stop() // long before it could be done
	_, err := r.Create(ctx, Request{Pool: "p", Volume: "v", Dir: dir, Tell: func(Progress) { cancel() }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	if all := must[[]Backup](t)(r.List(t.Context())); len(all) > 0 {
		t.Errorf("there is %+v", all)
	}
	must[Backup](t)(r.Create(t.Context(), Request{Pool: "p", Volume: "v", Dir: dir}))
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	if _, err := Verify(ctx, r.place, nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("verify: %v", err)
	}
}

// What cannot be read fails the backup: it would be missed in the restore.
func TestUnreadable(t *testing.T) {
	testenv.Require(t, testenv.Root)
	r, dir := opened(t, newPlace(t)), t.TempDir()
	put(t, dir+"/sub/a", "x")
	// A directory of a process that is not there any more cannot be read, by root neither.
	if err := os.WriteFile(dir+"/b", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("/proc/self/mem", dir+"/b", "", syscall.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir+"/b", syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	_, err := r.Create(t.Context(), Request{Pool: "p", Volume: "v", Dir: dir, PointInTime: true})
	if err == nil || !strings.Contains(err.Error(), `repository "near": volume "v": b: `) {
		t.Errorf("error is %v", err)
	}
	if all := must[[]Backup](t)(r.List(t.Context())); len(all) > 0 {
		t.Errorf("there is %+v", all)
	}
}
