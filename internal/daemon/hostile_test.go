package daemon

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// silentServer takes connections, and says nothing until drop ends them.
func silentServer(t *testing.T) (addr string, connected <-chan struct{}, drop func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	got, ended := make(chan struct{}, 100), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			got <- struct{}{}
		}
	}()
	drop = sync.OnceFunc(func() { _ = l.Close(); <-ended })
	t.Cleanup(drop)
	return l.Addr().String(), got, drop
}

// Half a volume stays one, whatever restore of it fails.
func TestPartialStaysPartial(t *testing.T) {
	h := startBackedUp(t, 5)
	ctx := t.Context()
	partial := func(when string) {
		t.Helper()
		_, err := h.plugin("a").Mount(ctx, "data", "one")
		if err == nil || !strings.Contains(err.Error(), "only partly restored") {
			t.Fatalf("%s: mount: %v", when, err)
		}
		if _, err := os.Stat(h.dir + "/state/fills/a/data"); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
	}
	h.must(h.stop())
	h.control.Close()
	h.must(os.MkdirAll(h.dir+"/state/fills/a", 0o700))
	write(t, h.dir+"/state/fills/a/data", `{"version":1,"kind":"over","repository":"near","backup":"0123","began":"2026-11-20T00:00:00Z","error":"cut off"}`)
	h.run()
	partial("at first")
	_, err := h.control.Backups().Restore(ctx, control.BackupRestoreRequest{ID: "data", To: "data"}, silent)
	if !errors.Is(err, errdefs.ErrExists) {
		t.Errorf("restored to one that is there: %v", err)
	}
	partial("after a restore to one that is there")
	h.must(os.Rename(h.dir+"/repository/p", h.dir+"/packs"))
	for _, purge := range []bool{false, true} {
		_, err := h.control.Backups().Restore(ctx, control.BackupRestoreRequest{ID: "data", Purge: purge}, silent)
		if err == nil {
			t.Fatal("restored without its packs")
		}
		partial("after a restore that failed")
	}
	h.await("nothing beside", func() bool { return slices.Equal(h.names("a"), []string{"data"}) })
	h.must(os.Rename(h.dir+"/packs", h.dir+"/repository/p"))
	_, err = h.control.Backups().Restore(ctx, control.BackupRestoreRequest{ID: "data"}, silent)
	h.must(err)
	_, err = h.plugin("a").Mount(ctx, "data", "one")
	h.must(err)
	h.must(h.plugin("a").Unmount(ctx, "data", "one"))
	if v := versionOf(t, h.dir+"/state/volumes/a/data/data", 5); v != "A" || !h.noFills("a") {
		t.Errorf("the volume has %s", v)
	}
}

// Somebody makes a volume under the name of one that is to be made of a backup when the repository
// answers: it is his, with all that is in it.
func TestCreateBesideAnother(t *testing.T) {
	testenv.Require(t, testenv.Sshd) // for ssh-keygen
	testCreateWait.Store(int64(time.Millisecond))
	defer testCreateWait.Store(0)
	h := startBackedUp(t, 5)
	ctx := t.Context()
	addr, connected, drop := silentServer(t)
	pools, near, _ := strings.Cut(repositoryTOML, "[repository.near]")
	write(t, h.dir+"/known", "")
	if out, err := exec.Command("ssh-keygen", "-qt", "ed25519", "-N", "", "-f", h.dir+"/key").CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v: %s", err, out)
	}
	h.configure(pools + "[repository.near]\nurl = \"sftp://me@" + addr + "/x\"\npassword_file = \"DIR/password\"\nkey_file = \"DIR/key\"\nknown_hosts = \"DIR/known\"\n")
	_, err := h.control.Reload(ctx)
	h.must(err)
	h.must(os.Mkdir(h.dir+"/outside", 0o700))
	write(t, h.dir+"/outside/file", "mine")
	h.must(h.plugin("a").Create(ctx, "new", nil))
	h.must(h.plugin("a").Remove(ctx, "new"))
	list, err := h.control.Storage().Trash(ctx, control.TrashListRequest{Pool: "a"})
	h.must(err)

	if err := h.plugin("a").Create(ctx, "new", map[string]string{"backup": "near/data"}); err == nil {
		t.Fatal("made of a repository that does not answer")
	}
	<-connected
	_, err = h.control.Storage().Restore(ctx, control.TrashRestoreRequest{Pool: "a", ID: list.Trashed[0].ID, Name: "new"})
	if err == nil || !strings.Contains(err.Error(), "is being restored from near/data") {
		t.Errorf("brought back: %v", err)
	}
	h.must(h.plugin("a").Create(ctx, "new", map[string]string{"mountpoint": h.dir + "/outside"}))
	drop()
	h.await("the fill given up", func() bool { return h.noFills("a") })
	h.must(h.stop())
	h.control.Close()
	h.configure(pools + "[repository.near]" + near)
	h.run()
	h.await("nothing under way", func() bool { return h.noFills("a") })
	dir, err := h.plugin("a").Mount(ctx, "new", "one")
	h.must(err)
	if text, err := os.ReadFile(dir + "/file"); err != nil || string(text) != "mine" {
		t.Errorf("the volume has %q, %v", text, err)
	}
	h.must(h.plugin("a").Unmount(ctx, "new", "one"))
}
