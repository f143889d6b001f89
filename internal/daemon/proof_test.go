package daemon

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/config"
	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/service/backups"
	"github.com/remora-plugins/remora/internal/service/proof"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

func (h *host) prove(name string) control.Proof {
	h.t.Helper()
	p, err := h.control.Backups().Prove(h.t.Context(), control.BackupListRequest{Name: name}, silent)
	h.must(err)
	if len(p.Proofs) != 1 {
		h.t.Fatalf("proofs are %+v", p)
	}
	return p.Proofs[0]
}

// A backup is restored, compared and thrown away, and what came of it is remembered.
func TestProof(t *testing.T) {
	h := startBackedUp(t, 20)
	p := h.prove("data")
	if p.Error != "" || p.Files != 20 || p.Bytes < 20*64<<10 || p.Proven.IsZero() || p.ProvenBackup != p.Backup || p.Seconds <= 0 || p.Volume != "data" || p.Pool != "a" {
		t.Errorf("proof is %+v", p)
	}
	if got := h.names("a"); !slices.Equal(got, []string{"data"}) || !h.noFills("a") {
		t.Errorf("left are %v", got)
	}
	list, err := h.control.Storage().Trash(t.Context(), control.TrashListRequest{Pool: "a"})
	if h.must(err); len(list.Trashed) > 0 {
		t.Errorf("in the trash are %+v", list.Trashed)
	}
	metrics, _ := h.metrics()
	labels := []string{"pool=a", "repository=near", "volume=data"}
	if v := value(t, metrics["remora_backup_proof_last_success_timestamp_seconds"], labels...); v != float64(p.Proven.Unix()) {
		t.Errorf("the metric says %v, and the proof %v", v, p.Proven.Unix())
	}
	if v := value(t, metrics["remora_backup_proof_successful"], labels...); v != 1 {
		t.Errorf("successful is %v", v)
	}

	// The repository is damaged behind the cache of this host.
	blobs, err := filepath.Glob(h.dir + "/repository/p/*/*")
	h.must(err)
	for _, name := range blobs {
		text, err := os.ReadFile(name)
		h.must(err)
		if len(text) > 100<<10 {
			text[len(text)/3] ^= 1
			h.must(os.WriteFile(name, text, 0o600))
		}
	}
	bad := h.prove("data")
	if bad.Error == "" || !bad.Proven.Equal(p.Proven) || bad.ProvenBackup != p.Backup {
		t.Errorf("proof is %+v", bad)
	}
	if got := h.names("a"); !slices.Equal(got, []string{"data"}) || !h.noFills("a") {
		t.Errorf("left are %v", got)
	}
	metrics, _ = h.metrics()
	if v := value(t, metrics["remora_backup_proof_successful"], labels...); v != 0 {
		t.Errorf("successful is %v", v)
	}
	if s := h.status(); len(s.Proofs) != 1 || s.Proofs[0] != bad {
		t.Errorf("status has %+v", s.Proofs)
	}
	// It is remembered by the next daemon.
	log := slog.New(slog.DiscardHandler)
	next := proof.New(t.Context(), proof.Options{StateDir: h.dir + "/state", Log: log, Backups: backups.New(backups.Options{
		Repositories: func() []config.Repository { return []config.Repository{{Name: "near"}} },
	})})
	if got := next.Known(); len(got) != 1 || !got[0].Proven.Equal(p.Proven) {
		t.Errorf("remembered is %+v", got)
	}
	if _, err := h.control.Backups().Prove(t.Context(), control.BackupListRequest{Name: "gone"}, silent); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("of a volume without backups: %v", err)
	}
}

func (h *host) verify(t *testing.T, table string) {
	t.Helper()
	h.configure(repositoryTOML + "[verify.x]\n" + table)
	_, err := h.control.Reload(t.Context())
	h.must(err)
}

// Where a proof is made is chosen, and looked at first.
func TestProofInScratch(t *testing.T) {
	testenv.Require(t, testenv.Root)
	h := startBackedUp(t, 20)
	scratch := h.dir + "/scratch"
	h.verify(t, "scratch = \"DIR/scratch\"\n")
	if p := h.prove("data"); !strings.Contains(p.Error, "no such file or directory") {
		t.Errorf("proof is %+v", p)
	}
	h.must(os.Mkdir(scratch, 0o700))
	if p := h.prove("data"); p.Error != "" {
		t.Errorf("proof is %+v", p)
	}
	h.must(unix.Mount("small", scratch, "tmpfs", 0, "size=1m"))
	defer func() { h.must(unix.Unmount(scratch, 0)) }()
	if p := h.prove("data"); !strings.Contains(p.Error, "no room for it") {
		t.Errorf("proof is %+v", p)
	}
	if left, err := os.ReadDir(scratch); err != nil || len(left) > 0 || !h.noFills(".scratch") {
		t.Errorf("left are %v, %v", left, err)
	}
	h.verify(t, "scratch = \"b\"\n")
	if p := h.prove("data"); p.Error != "" {
		t.Errorf("proof is %+v", p)
	}
	h.verify(t, "image = \"bb:1\"\n[engine]\nsockets = [\"DIR/none\"]\n") // needs a restart
	if s := h.status(); len(s.Proofs) != 1 {
		t.Errorf("status has %+v", s.Proofs)
	}
}

// What was missed while no daemon ran is done once, at its start.
func TestProofBySchedule(t *testing.T) {
	h := startBackedUp(t, 5)
	h.must(h.stop())
	h.control.Close()
	h.configure(repositoryTOML + "[verify.x]\ncron = \"@hourly\"\nvolumes = [\"data\"]\n[verify.never]\ncron = \"@hourly\"\nvolumes = [\"other\"]\n")
	h.must(os.MkdirAll(h.dir+"/state/proofs/ran", 0o700))
	write(t, h.dir+"/state/proofs/ran/x", `{"version":1,"at":"2026-01-02T03:04:05Z"}`)
	h.start()
	h.await("ready", h.served)
	h.await("the proof", func() bool { return len(h.status().Proofs) == 1 })
	if p := h.status().Proofs[0]; p.Error != "" || p.Volume != "data" {
		t.Errorf("proof is %+v", p)
	}
}

// A daemon that is killed in a proof leaves nothing of it.
func TestKilledProof(t *testing.T) {
	killRestores(t, 4, func(*host) {}, func(h *host) error {
		_, err := h.control.Backups().Prove(t.Context(), control.BackupListRequest{Name: "data"}, silent)
		return err
	}, "volumes/a/remora-proof-*/data/*", func(h *host) {
		h.await("what was cut off settled", func() bool { return h.noFills("a") })
		if got := h.names("a"); !slices.Equal(got, []string{"data"}) {
			t.Errorf("volumes are %v", got)
		}
		list, err := h.control.Storage().Trash(t.Context(), control.TrashListRequest{Pool: "a"})
		if h.must(err); len(list.Trashed) > 0 {
			t.Errorf("in the trash are %+v", list.Trashed)
		}
	})
}

// A list knows the last backup of each volume without asking for it: those that were made by this
// daemon, by one before it, and none where the last is gone.
func TestLastBackup(t *testing.T) {
	h := startBackedUp(t, 1)
	ctx := t.Context()
	last := func() (at time.Time, unknown bool) {
		all, err := h.control.Volumes().List(ctx, control.VolumeListRequest{Pool: "a", Usage: true})
		h.must(err)
		return all[0].LastBackup, slices.Contains(all[0].Unknown, "LastBackup")
	}
	known := func() bool { _, unknown := last(); return !unknown }
	all, err := h.control.Backups().List(ctx, control.BackupListRequest{})
	h.must(err)
	h.await("the first", func() bool { at, _ := last(); return known() && at.Equal(all[0].Started) })
	two, err := h.control.Backups().Create(ctx, control.BackupCreateRequest{Pool: "a", Name: "data"}, silent)
	h.must(err)
	if at, unknown := last(); !at.Equal(two.Started) || unknown {
		t.Errorf("the last backup is of %v, %v, want %v", at, unknown, two.Started)
	}
	h.must(h.control.Backups().Remove(ctx, control.BackupRequest{ID: two.ID}))
	h.await("the one before", func() bool { at, _ := last(); return at.Equal(all[0].Started) })
	h.must(h.stop())
	h.control.Close()
	h.must(os.Rename(h.dir+"/repository", h.dir+"/away"))
	h.start()
	h.await("ready", h.served)
	if at, unknown := last(); !at.IsZero() || !unknown {
		t.Errorf("of a repository out of reach the last backup is of %v, %v", at, unknown)
	}
	h.must(os.Rename(h.dir+"/away", h.dir+"/repository"))
	_, err = h.control.Reload(ctx)
	h.must(err)
	h.await("it again", func() bool { at, _ := last(); return known() && at.Equal(all[0].Started) })
	h.must(os.RemoveAll(h.dir + "/repository"))
	_, err = h.control.Reload(ctx)
	h.must(err)
	_, err = h.control.Backups().Init(ctx, control.BackupRepository{})
	h.must(err)
	h.await("none in a new one", func() bool { at, _ := last(); return known() && at.IsZero() })
}
