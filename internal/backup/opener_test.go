package backup

import (
	"context"
	"errors"
	"net/url"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kopia/kopia/repo/maintenance"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// opener is one that is closed at the end, when nothing of what it opened may be left.
func opener(t *testing.T) *Opener {
	t.Helper()
	o := NewOpener(time.Hour)
	t.Cleanup(func() {
		o.Close()
		stacks := make([]byte, 1<<20)
		for started := time.Now(); ; time.Sleep(10 * time.Millisecond) {
			if n := strings.Count(string(stacks[:runtime.Stack(stacks, true)]), "(*watched).guard"); n == 0 {
				return
			} else if time.Since(started) > 30*time.Second {
				t.Errorf("%d repositories are open still", n)
				return
			}
		}
	})
	return o
}

// taken returns the repository that is given, which is kept or not by now.
func taken(t *testing.T, o *Opener, p Place) (r *Repository) {
	t.Helper()
	if err := o.With(t.Context(), p, func(is *Repository) error { r = is; return nil }); err != nil {
		t.Fatal(err)
	}
	return r
}

// A repository that stays open shows what others do to it.
func TestKeptOpen(t *testing.T) {
	p, o, dir := newPlace(t), opener(t), t.TempDir()
	if err := Init(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	first := taken(t, o, p)
	use := func(do func(r *Repository)) {
		t.Helper()
		if err := o.With(t.Context(), p, func(r *Repository) error {
			if r != first {
				t.Error("it was opened anew")
			}
			do(r)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	q := Request{Pool: "p", Volume: "v", Dir: dir, PointInTime: true}
	put(t, dir+"/a", noise(t, 1<<20))
	var one Backup
	use(func(r *Repository) { one = must[Backup](t)(r.Create(t.Context(), q)) })
	use(func(r *Repository) {
		if b := must[Backup](t)(r.Create(t.Context(), q)); b.Stored > 64<<10 {
			t.Errorf("what is unchanged is stored with %d bytes", b.Stored)
		}
	})
	other := p
	other.Dir = t.TempDir() // another process, of this host: it may remove
	there := reopened(t, other)
	q.Volume = "w"
	must[Backup](t)(there.Create(t.Context(), q))
	var all []Backup
	use(func(r *Repository) { all = must[[]Backup](t)(r.List(t.Context())) })
	if len(all) != 3 {
		t.Errorf("with one by another process, there are %d", len(all))
	}
	for _, b := range all {
		if err := there.Remove(t.Context(), b.ID); err != nil {
			t.Fatal(err)
		}
	}
	if err := there.maintain(t.Context(), maintenance.SafetyNone); err != nil {
		t.Fatal(err)
	}
	use(func(r *Repository) {
		if all := must[[]Backup](t)(r.List(t.Context())); len(all) != 0 {
			t.Errorf("after all are removed, there are %d", len(all))
		}
		if _, err := r.Inspect(t.Context(), one.ID); !errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("one that is removed: %v", err)
		}
	})
	// What it has an index of, and is not there any more, is stored again.
	put(t, dir+"/b", "new")
	var again Backup
	if err := o.With(t.Context(), p, func(r *Repository) (err error) { again, err = r.Create(t.Context(), q); return err }); err != nil {
		t.Fatal(err)
	}
	if again.Stored < 1<<20 {
		t.Errorf("%d bytes are stored of what was removed", again.Stored)
	}
	if v := must[Verified](t)(Verify(t.Context(), other, nil, nil)); v.Backups != 1 || len(v.Damaged) > 0 {
		t.Errorf("verified: %+v", v)
	}
	restores(t, other, cached, again.ID, dir)
}

// Whatever it depends on counts as it is now.
func TestKeptOpenAnew(t *testing.T) {
	p, o := newPlace(t), opener(t)
	if err := Init(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	nothing := func(*Repository) error { return nil }
	was := taken(t, o, p)
	anew := func(what string) {
		t.Helper()
		now := taken(t, o, p)
		if now == was {
			t.Errorf("%s: the old one is used", what)
		}
		if was = now; taken(t, o, p) != now {
			t.Errorf("%s: the new one is not kept", what)
		}
	}
	put(t, p.PasswordFile, "wrong\n")
	wants(t, o.With(t.Context(), p, nothing), errdefs.ErrDenied, `repository "near": the password is wrong`)
	put(t, p.PasswordFile, "secret\n")
	anew("a password that was wrong")
	if err := os.Chmod(p.PasswordFile, 0o644); err != nil {
		t.Fatal(err)
	}
	wants(t, o.With(t.Context(), p, nothing), errdefs.ErrDenied, "others may read it (mode 0644)")
	if err := os.Chmod(p.PasswordFile, 0o600); err != nil {
		t.Fatal(err)
	}
	anew("a password that others could read")

	if err := os.Rename(p.URL.Path, p.URL.Path+"-gone"); err != nil {
		t.Fatal(err)
	}
	wants(t, o.With(t.Context(), p, nothing), errdefs.ErrNotFound, `repository "near": directory `+p.URL.Path+" is not there")
	if err := os.Mkdir(p.URL.Path, 0o700); err != nil {
		t.Fatal(err)
	}
	wants(t, o.With(t.Context(), p, nothing), errdefs.ErrNotFound, `repository "near": there is none at file://`)
	if err := errors.Join(os.RemoveAll(p.URL.Path), os.Rename(p.URL.Path+"-gone", p.URL.Path)); err != nil {
		t.Fatal(err)
	}
	anew("a directory that was away")

	dir := t.TempDir()
	put(t, dir+"/a", "x")
	if err := o.With(t.Context(), p, func(r *Repository) error {
		_, err := r.Create(t.Context(), Request{Pool: "p", Volume: "v", Dir: dir})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(p.URL.Path); err != nil {
		t.Fatal(err)
	}
	if err := Init(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	anew("another repository at the same place")
	if all := must[[]Backup](t)(reopened(t, p).List(t.Context())); len(all) > 0 {
		t.Errorf("the new one has %d backups", len(all))
	}

	// Kopia's own program may change the password.
	if err := reopened(t, p).rep.FormatManager().ChangePassword(t.Context(), "another"); err != nil {
		t.Fatal(err)
	}
	wants(t, o.With(t.Context(), p, nothing), errdefs.ErrDenied, `repository "near": the password is wrong`)
	put(t, p.PasswordFile, "another\n")
	anew("a changed password")
	p.Parallel = 7
	anew("another configuration")
	o.Forget()
	anew("one that was to be forgotten")
	failed := errors.New("this went wrong")
	if err := o.With(t.Context(), p, func(*Repository) error { return failed }); !errors.Is(err, failed) {
		t.Errorf("error is %v", err)
	}
	anew("something went wrong")
	if err := o.With(t.Context(), p, func(*Repository) error { o.Forget(); return nil }); err != nil {
		t.Error(err)
	}
	anew("forgotten while it was in use")
	if err := o.With(t.Context(), p, func(r *Repository) error { return r.Maintain(t.Context()) }); err != nil {
		t.Error(err)
	}
	anew("put in order")
	o.Close()
	if taken(t, o, p) == was || len(o.kept) > 0 {
		t.Error("it is kept after the end")
	}
}

// One that is in use is not shared, and one of several stays.
func TestKeptOpenTogether(t *testing.T) {
	p, o := newPlace(t), opener(t)
	if err := Init(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	err := o.With(t.Context(), p, func(one *Repository) error {
		return o.With(t.Context(), p, func(two *Repository) error {
			if one == two {
				t.Error("two have the same")
			}
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	const hosts, rounds = 3, 4
	var all sync.WaitGroup
	for i := range hosts {
		all.Go(func() {
			dir := t.TempDir()
			for range rounds {
				put(t, dir+"/a", noise(t, 1<<20))
				if err := o.With(t.Context(), p, func(r *Repository) error {
					_, err := r.Create(t.Context(), Request{Pool: "p", Volume: string(rune('a' + i)), Dir: dir})
					if err == nil {
						_, err = r.List(t.Context())
					}
					return err
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if len(o.kept) != 1 {
		t.Errorf("%d are kept", len(o.kept))
	}
	if v := must[Verified](t)(Verify(t.Context(), p, nil, nil)); v.Backups != hosts*rounds || len(v.Damaged) > 0 {
		t.Errorf("verified: %+v", v)
	}
}

// What nobody uses is closed.
func TestKeptOpenIdle(t *testing.T) {
	p, o := newPlace(t), opener(t)
	if err := Init(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	r := must[*Repository](t)(p.open(t.Context(), cached))
	synctest.Test(t, func(t *testing.T) {
		k := &keptOpen{r: r, ctx: context.WithoutCancel(t.Context())}
		if !o.keep(t.Context(), k, 0) {
			t.Fatal("it is not kept")
		}
		time.Sleep(time.Hour - time.Second)
		held := func() *keptOpen {
			o.mu.Lock()
			defer o.mu.Unlock()
			return o.kept["near"]
		}
		if held() != k {
			t.Error("it is gone too early")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if held() != nil {
			t.Error("it is there still")
		}
	})
}

// The cache may be deleted at any time, and a server may come and go.
func TestKeptOpenRemote(t *testing.T) {
	testenv.Require(t, testenv.S3)
	p, addr, stop := s3Place(t)
	x := newProxy(t, addr)
	p.S3.Endpoint = &url.URL{Scheme: "http", Host: x.addr}
	p.stall, p.login = 2*time.Second, time.Second
	keptRemote(t, p, x, stop, p.S3.CredentialsFile)
}

func TestKeptOpenSFTP(t *testing.T) {
	testenv.Require(t, testenv.Root, testenv.Sshd)
	p, addr, known, stop := sftpPlace(t)
	x := newProxy(t, addr)
	p.URL.Host = x.addr
	p.SFTP.KnownHosts = known("known-proxy", x.addr, "host")
	p.stall, p.login = 2*time.Second, time.Second
	keptRemote(t, p, x, stop, p.SFTP.KnownHosts)
}

func keptRemote(t *testing.T, p Place, x *proxy, stop func(), secret string) {
	t.Helper()
	o, dir := opener(t), t.TempDir()
	if err := Init(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	create := func() error {
		put(t, dir+"/a", noise(t, 1<<20))
		return o.With(t.Context(), p, func(r *Repository) error {
			_, err := r.Create(t.Context(), Request{Pool: "p", Volume: "v", Dir: dir})
			return err
		})
	}
	good := func(what string) {
		t.Helper()
		if err := create(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	good("first")
	if r := taken(t, o, p); taken(t, o, p) != r {
		t.Error("it is not kept")
	}
	if err := os.RemoveAll(p.Dir); err != nil {
		t.Fatal(err)
	}
	good("without its cache")
	text := string(must[[]byte](t)(os.ReadFile(secret)))
	put(t, secret, "")
	if err := create(); err == nil || errdefs.Class(err) == nil {
		t.Errorf("without a secret: %v", err)
	}
	put(t, secret, text)
	good("with it again")
	x.freeze(0)
	started := time.Now()
	wants(t, create(), errdefs.ErrUnavailable, "does not answer within 1s")
	if d := time.Since(started); d > underRace*(stillTime+5*time.Second) {
		t.Errorf("a frozen server: it took %s", d)
	}
	x.melt()
	good("of a server that is back")
	x.cut()
	good("of a server that has forgotten us")
	x.cut()
	stop()
	if err := create(); !errors.Is(err, errdefs.ErrUnavailable) && !errors.Is(err, errdefs.ErrDenied) {
		t.Errorf("of a server that is gone: %v", err)
	}
}
