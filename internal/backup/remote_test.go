package backup

import (
	"bytes"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/config"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// serve starts a server that listens on an address of its own, and stops it at the end.
func serve(t *testing.T, argv func(addr string) []string) (addr string, stop func()) {
	t.Helper()
	l := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	addr = l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	args := argv(addr)
	path := must[string](t)(exec.LookPath(args[0]))
	var log bytes.Buffer
	cmd := exec.Command(path, args[1:]...)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			_ = cmd.Process.Kill()
			_ = cmd.Wait() // it was killed
		}
	}
	t.Cleanup(stop)
	for started := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		if c, err := net.Dial("tcp", addr); err == nil {
			_ = c.Close()
			return addr, stop
		}
		if time.Since(started) > 20*time.Second {
			stop()
			t.Fatalf("%s does not listen: %s", args[0], log.String())
		}
	}
}

// remote goes the whole way with a repository on a server.
func remote(t *testing.T, p Place, stop func()) {
	t.Helper()
	dir := t.TempDir()
	put(t, dir+"/sub/a", noise(t, 3<<20))
	_, err := Open(t.Context(), p)
	wants(t, err, errdefs.ErrNotFound, `repository "near": there is none at `+p.URL.String())
	if err := Init(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	r := must[*Repository](t)(Open(t.Context(), p))
	b := must[Backup](t)(r.Create(t.Context(), Request{Pool: "p", Volume: "v", Dir: dir, PointInTime: true}))
	again := must[Backup](t)(r.Create(t.Context(), Request{Pool: "p", Volume: "v", Dir: dir, PointInTime: true}))
	if again.Stored > 64<<10 {
		t.Errorf("what is unchanged is stored with %d bytes", again.Stored)
	}
	fresh := p
	fresh.Dir = t.TempDir() // as on another host, with nothing in its cache
	restores(t, fresh, cached, b.ID, dir)
	if v := must[Verified](t)(Verify(t.Context(), p, nil, nil)); v.Backups != 2 || len(v.Damaged) > 0 {
		t.Errorf("verified: %+v", v)
	}
	if err := r.Remove(t.Context(), b.ID); err != nil {
		t.Error(err)
	}
	if err := r.Maintain(t.Context()); err != nil {
		t.Error(err)
	}
	restores(t, p, cached, again.ID, dir)
	wants(t, Init(t.Context(), p), errdefs.ErrExists, "there is one already")
	if err := r.Close(t.Context()); err != nil {
		t.Error(err)
	}
	stop()
	_, err = Open(t.Context(), p)
	wants(t, err, errdefs.ErrUnavailable, "cannot be reached")
	files, err := filepath.Glob(p.Dir + "/*.json")
	if err != nil || len(files) == 0 {
		t.Errorf("there is no file of kopia's, %v", err)
	}
	for _, name := range files {
		if text := string(must[[]byte](t)(os.ReadFile(name))); strings.Contains(text, "hunter2") || strings.Contains(text, "PRIVATE") {
			t.Errorf("%s holds %s", name, text)
		}
	}
}

// s3Place is a place in a bucket of a server that is started for it.
func s3Place(t *testing.T) (p Place, addr string, stop func()) {
	t.Helper()
	root := t.TempDir()
	if err := os.Mkdir(root+"/bucket", 0o755); err != nil {
		t.Fatal(err)
	}
	addr, stop = serve(t, func(addr string) []string {
		return []string{"versitygw", "--port", addr, "--access", "me", "--secret", "hunter2hunter2", "posix", root}
	})
	p = newPlace(t)
	p.URL = must[*url.URL](t)(url.Parse("s3://bucket/some/prefix"))
	file := filepath.Join(root, "credentials")
	put(t, file, "[default]\naws_access_key_id = me\naws_secret_access_key = hunter2hunter2\n")
	p.S3 = config.RepositoryS3{Endpoint: &url.URL{Scheme: "http", Host: addr}, Region: "us-east-1", CredentialsFile: file}
	return p, addr, stop
}

func TestS3(t *testing.T) {
	testenv.Require(t, testenv.S3)
	p, _, stop := s3Place(t)
	wrong := p
	t.Setenv("BACKUP_TEST_ID", "me")
	t.Setenv("BACKUP_TEST_KEY", "hunter2wrong")
	wrong.S3.CredentialsFile, wrong.S3.AccessKeyEnv, wrong.S3.SecretKeyEnv = "", "BACKUP_TEST_ID", "BACKUP_TEST_KEY"
	_, err := Open(t.Context(), wrong)
	wants(t, err, errdefs.ErrDenied, `repository "near": cannot log in: `)
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("error tells the secret: %v", err)
	}
	wrong = p
	wrong.URL = &url.URL{Scheme: "s3", Host: "no-bucket"}
	_, err = Open(t.Context(), wrong)
	wants(t, err, errdefs.ErrNotFound, `repository "near": bucket "no-bucket": is not there`)
	wants(t, Init(t.Context(), wrong), errdefs.ErrNotFound, `repository "near": bucket "no-bucket": is not there`)
	wrong = p
	wrong.S3.CredentialsFile, wrong.S3.AccessKeyEnv, wrong.S3.SecretKeyEnv = "", "BACKUP_TEST_NOBODY", "BACKUP_TEST_KEY"
	t.Setenv("BACKUP_TEST_NOBODY", "nobody")
	_, err = Open(t.Context(), wrong)
	wants(t, err, errdefs.ErrDenied, `repository "near": cannot log in: `)
	remote(t, p, stop)
	if found := must[[]os.DirEntry](t)(os.ReadDir(filepath.Dir(p.S3.CredentialsFile) + "/bucket/some/prefix")); len(found) < 4 {
		t.Errorf("below the prefix are %d", len(found))
	}
}

// sftpPlace is a place on a server that is started for it; known makes a file that knows an
// address by a key.
func sftpPlace(t *testing.T) (p Place, addr string, known func(name, addr, key string) string, stop func()) {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"host", "id", "stranger"} {
		if out, err := exec.Command("ssh-keygen", "-qt", "ed25519", "-N", "", "-f", dir+"/"+name).CombinedOutput(); err != nil {
			t.Fatalf("ssh-keygen: %v: %s", err, out)
		}
	}
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil { // sshd wants it to be there
		t.Fatal(err)
	}
	addr, stop = serve(t, func(addr string) []string {
		host, port, _ := net.SplitHostPort(addr)
		put(t, dir+"/sshd_config", fmt.Sprintf("Port %s\nListenAddress %s\nHostKey %s/host\nAuthorizedKeysFile %s/id.pub\nStrictModes no\n"+
			"PermitRootLogin prohibit-password\nUsePAM no\nPidFile none\nSubsystem sftp internal-sftp\n", port, host, dir, dir))
		return []string{"sshd", "-D", "-e", "-f", dir + "/sshd_config"}
	})
	known = func(name, addr, key string) string {
		host, port, _ := net.SplitHostPort(addr)
		pub := strings.Fields(string(must[[]byte](t)(os.ReadFile(dir + "/" + key + ".pub"))))
		put(t, dir+"/"+name, fmt.Sprintf("[%s]:%s %s %s\n", host, port, pub[0], pub[1]))
		return dir + "/" + name
	}
	p = newPlace(t)
	p.URL = &url.URL{Scheme: "sftp", User: url.User("root"), Host: addr, Path: dir + "/below/repository"}
	p.SFTP = config.RepositorySFTP{KeyFile: dir + "/id", KnownHosts: known("known", addr, "host")}
	return p, addr, known, stop
}

// The file that says where the blobs lie is damaged on a server, where it is mended by hand.
func TestLayoutOnSFTP(t *testing.T) {
	testenv.Require(t, testenv.Root, testenv.Sshd)
	p, _, _, _ := sftpPlace(t)
	rep := opened(t, p)
	dir := t.TempDir()
	put(t, dir+"/a", "hello")
	b := must[Backup](t)(rep.Create(t.Context(), Request{Pool: "p", Volume: "v", Dir: dir}))
	name := p.URL.Path + "/.shards"
	put(t, name, "z")
	_, err := Open(t.Context(), p)
	wants(t, err, err, `repository "near": a part of it is damaged: .shards`)
	if hints := errdefs.Hints(err); len(hints) != 1 || !strings.Contains(hints[0], "remove the file "+name) {
		t.Errorf("hints are %q", hints)
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	restores(t, p, uncached, b.ID, dir)
}

func TestSFTP(t *testing.T) {
	testenv.Require(t, testenv.Root, testenv.Sshd)
	p, addr, known, stop := sftpPlace(t)
	dir := filepath.Dir(p.SFTP.KeyFile)
	wrong := p
	wrong.SFTP.KnownHosts = known("known-wrong", addr, "stranger")
	_, err := Open(t.Context(), wrong)
	wants(t, err, errdefs.ErrDenied, `repository "near": cannot log in: ssh: handshake failed: knownhosts: key mismatch`)
	wrong = p
	wrong.SFTP.KeyFile = dir + "/stranger"
	_, err = Open(t.Context(), wrong)
	wants(t, err, errdefs.ErrDenied, `repository "near": cannot log in: ssh: handshake failed: ssh: unable to authenticate`)
	if err := os.Chmod(dir+"/stranger", 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = Open(t.Context(), wrong)
	wants(t, err, errdefs.ErrDenied, "others may read it")
	remote(t, p, stop)
}
