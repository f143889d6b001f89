package store

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

var cluster = record.Cluster{7}

type body struct {
	V int `json:"v"`
}

func key(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
}

func host(seed byte) (h record.Host) {
	copy(h[:], key(seed).Public().(ed25519.PublicKey))
	return h
}

// open opens the store in dir with the key of the seed.
func open(t testing.TB, dir string, seed byte, o Options) *Store {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(root, cluster, key(seed), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(); _ = root.Close() })
	return s
}

func put(t testing.TB, s *Store, kind, name string, v int) {
	t.Helper()
	if err := s.Put(kind, name, body{v}); err != nil {
		t.Fatal(err)
	}
}

// all returns everything that s holds.
func all(t testing.TB, s *Store) []record.Record {
	t.Helper()
	found, err := s.Missing([]byte{digestFormat})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// values returns "writer's seed name" -> v of a kind.
func values(t testing.TB, s *Store, kind string) map[string]int {
	t.Helper()
	m := map[string]int{}
	for _, r := range s.Records(kind) {
		var b body
		if err := json.Unmarshal(r.Body, &b); err != nil {
			t.Fatal(err)
		}
		m[r.Name] = b.V
	}
	return m
}

func want(t testing.TB, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestPut(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, 1, Options{})
	put(t, s, "name", "b", 1)
	put(t, s, "name", "a", 1)
	put(t, s, "name", "b", 2)
	put(t, s, "network", "b", 3)
	first := s.Records("name")
	put(t, s, "name", "b", 2)
	want(t, "a Put of what stands there", s.Records("name"), first)
	if first[0].Name != "a" || first[1].Name != "b" || !first[1].Verify() || first[1].Writer != host(1) {
		t.Errorf("%+v", first)
	}
	for range 2 {
		if err := s.Delete("name", "a"); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Delete("name", "none"); err != nil {
		t.Error(err)
	}
	want(t, "names", values(t, s, "name"), map[string]int{"b": 2})
	if st := s.Status(); st.Records != 2 || st.Tombstones != 1 || st.Incarnation != 1 {
		t.Errorf("%+v", st)
	}
	if err := s.Put("Bad kind", "x", body{}); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("a bad kind: %v", err)
	}
	if err := s.Put("name", "x", make([]byte, record.MaxBody)); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("a large body: %v", err)
	}
	s.Close()
	if err := s.Put("name", "x", body{}); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("closed: %v", err)
	}
	s = open(t, dir, 1, Options{})
	want(t, "names", values(t, s, "name"), map[string]int{"b": 2})
	if st := s.Status(); st.Records != 2 || st.Tombstones != 1 || st.Incarnation != 2 || st.Damage != nil {
		t.Errorf("%+v", st)
	}
}

func TestOpenElsewhere(t *testing.T) {
	dir := t.TempDir()
	open(t, dir, 1, Options{}).Close()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if _, err := Open(root, record.Cluster{8}, key(1), Options{}); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("another cluster: %v", err)
	}
	if _, err := Open(root, cluster, key(2), Options{}); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("another key: %v", err)
	}
}

func TestMerge(t *testing.T) {
	a, b := open(t, t.TempDir(), 1, Options{}), open(t, t.TempDir(), 2, Options{})
	put(t, a, "name", "x", 1)
	put(t, a, "name", "y", 1)
	got := all(t, a)
	if news, refused := b.Merge(got); news != 2 || refused != 0 {
		t.Errorf("%d news, %d refused", news, refused)
	}
	if news, refused := b.Merge(got); news != 0 || refused != 0 {
		t.Errorf("again: %d news, %d refused", news, refused)
	}
	if !a.Agrees(b.Digest()) {
		t.Error("they do not agree")
	}
	put(t, a, "name", "x", 2)
	newer := all(t, a)
	b.Merge(newer)
	b.Merge(got)
	want(t, "names", values(t, b, "name"), map[string]int{"x": 2, "y": 1})

	bad := map[string]func(*record.Record){
		"body":        func(r *record.Record) { r.Body = []byte(`{"v":9}`) },
		"cluster":     func(r *record.Record) { r.Cluster = record.Cluster{9} },
		"version":     func(r *record.Record) { r.Counter = 0 },
		"incarnation": func(r *record.Record) { r.Incarnation = 1 << 63 },
		"large":       func(r *record.Record) { r.Body = make([]byte, record.MaxBody+1) },
		"own":         func(r *record.Record) { r.Writer = b.Self() },
	}
	for name, change := range bad {
		r := newer[0]
		r.Version.Counter += 9
		change(&r)
		if news, refused := b.Merge([]record.Record{r}); news != 0 || refused != 1 {
			t.Errorf("%s: %d news, %d refused", name, news, refused)
		}
	}
	if st := b.Status(); st.Refused != len(bad) || st.LastRefused == "" || st.Twin.Records != 0 {
		t.Errorf("%+v", st)
	}
	want(t, "names", values(t, b, "name"), map[string]int{"x": 2, "y": 1})
}

// TestAnyOrder gives the records of three hosts, and of deletions and removals, to others in random orders, and
// parts of them more than once: in the end all hold the same.
func TestAnyOrder(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var sent []record.Record
	note := Options{Spread: func(r []record.Record) { sent = append(sent, r...) }}
	for seed := byte(1); seed <= 3; seed++ {
		dir := t.TempDir()
		for range 2 {
			s := open(t, dir, seed, note)
			for range 40 {
				name := fmt.Sprint(random.IntN(8))
				switch random.IntN(4) {
				case 0:
					if err := s.Delete("name", name); err != nil {
						t.Fatal(err)
					}
				case 1:
					put(t, s, "grant", name, random.IntN(100))
				default:
					put(t, s, "name", name, random.IntN(100))
				}
			}
			if seed == 1 {
				if err := s.Put("removal", host(3).String(), record.Removal{Incarnation: 1}); err != nil {
					t.Fatal(err)
				}
			}
			s.Close()
		}
	}
	var first *Store
	for i := range 20 {
		order := append(slices.Clip(sent), sent[:random.IntN(len(sent))]...)
		random.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		s := open(t, t.TempDir(), byte(10+i), Options{})
		for len(order) > 0 {
			n := min(1+random.IntN(9), len(order))
			if _, refused := s.Merge(order[:n]); refused > 0 {
				t.Fatal(s.Status())
			}
			order = order[n:]
		}
		if first == nil {
			first = s
			continue
		}
		for _, kind := range []string{"name", "grant", "removal"} {
			want(t, kind, s.Records(kind), first.Records(kind))
		}
		if !s.Agrees(first.Digest()) {
			t.Errorf("store %d has another digest", i)
		}
	}
	if len(first.Records("name")) < 9 {
		t.Errorf("%d names only", len(first.Records("name")))
	}
}

func TestRemoval(t *testing.T) {
	dir := t.TempDir()
	a, b, c := open(t, t.TempDir(), 1, Options{}), open(t, dir, 2, Options{}), open(t, t.TempDir(), 3, Options{})
	put(t, b, "name", "x", 1)
	put(t, b, "grant", "g", 1)
	put(t, b, "network", "blue", 1)
	a.Merge(all(t, b))
	old := all(t, b)
	if err := a.Put("removal", b.Self().String(), record.Removal{Incarnation: b.Incarnation()}); err != nil {
		t.Fatal(err)
	}
	if n, g := len(a.Records("name")), len(a.Records("grant")); n != 0 || g != 0 {
		t.Errorf("%d names, %d grants of the removed host", n, g)
	}
	if g := a.Bequeathed("grant"); len(g) != 1 {
		t.Errorf("%d grants are left", len(g))
	}
	if n := a.Records("network"); len(n) != 1 {
		t.Errorf("%d networks are left of all", len(n))
	}
	if news, refused := a.Merge(old); news != 0 || refused != 0 {
		t.Errorf("%d, %d: it is back", news, refused)
	}
	c.Merge(old)
	c.Merge(all(t, a))
	if !c.Agrees(a.Digest()) || len(c.Records("name")) != 0 {
		t.Error("the order of removal and record counts")
	}

	// The host itself goes on, and is told. It comes back in a new incarnation.
	b.Merge(all(t, a))
	if st := b.Status(); st.Removed != 1 || len(b.Records("name")) != 1 {
		t.Errorf("%+v, %d names", st, len(b.Records("name")))
	}
	if err := b.Renew(b.Status().Removed); err != nil {
		t.Fatal(err)
	}
	if st := b.Status(); st.Removed != 0 || st.Incarnation != 2 {
		t.Errorf("%+v", st)
	}
	a.Merge(all(t, b))
	if n, g := len(a.Records("name")), len(a.Records("grant")); n != 1 || g != 0 {
		t.Errorf("%d names, %d grants of the host that came back", n, g)
	}
	if !a.Agrees(b.Digest()) {
		t.Error("they do not agree")
	}

	// Who removed it may be removed too: that brings nothing back.
	if err := c.Put("removal", a.Self().String(), record.Removal{Incarnation: 9}); err != nil {
		t.Fatal(err)
	}
	c.Merge(old)
	if n := len(c.Records("name")); n != 0 {
		t.Errorf("%d names", n)
	}
}

func TestQuota(t *testing.T) {
	a := open(t, t.TempDir(), 1, Options{})
	for i := range 30 {
		put(t, a, "name", fmt.Sprint(i), i)
	}
	size := all(t, a)[0].Size()
	for name, l := range map[string]Limits{
		"records": {Records: 10}, "bytes": {Bytes: 10*size + size/2}, "total": {Total: 10*size + size/2},
	} {
		s := open(t, t.TempDir(), 2, Options{Limits: l})
		if news, refused := s.Merge(all(t, a)); news < 9 || news > 11 || news+refused != 30 {
			t.Errorf("%s: %d news, %d refused", name, news, refused)
		}
	}
	s := open(t, t.TempDir(), 2, Options{Limits: Limits{Writers: 3}})
	for seed := byte(10); seed < 20; seed++ {
		o := open(t, t.TempDir(), seed, Options{})
		put(t, o, "name", "x", 1)
		s.Merge(all(t, o))
	}
	if st := s.Status(); st.Writers != 3 || st.Refused != 7 {
		t.Errorf("%+v", st)
	}
	// A host is told before its records are refused elsewhere; tombstones make room.
	small := open(t, t.TempDir(), 4, Options{Limits: Limits{Records: 3}})
	for i := range 9 {
		put(t, small, "name", fmt.Sprint(i), i)
		if i < 6 {
			if err := small.Delete("name", fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := small.Put("name", "more", body{}); !errors.Is(err, errdefs.ErrUnavailable) || len(errdefs.Hints(err)) == 0 {
		t.Errorf("full: %v", err)
	}
}

func TestTombstonesAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := open(t, t.TempDir(), 1, Options{}), open(t, t.TempDir(), 2, Options{})
		away := open(t, t.TempDir(), 3, Options{})
		put(t, a, "name", "x", 1)
		put(t, a, "name", "y", 1)
		away.Merge(all(t, a))
		if err := a.Delete("name", "x"); err != nil {
			t.Fatal(err)
		}
		b.Merge(all(t, a))
		time.Sleep(tombstoneAge - time.Hour)
		if na, nb := a.Status().Tombstones, b.Status().Tombstones; na != 1 || nb != 1 {
			t.Errorf("%d and %d tombstones after 23 hours", na, nb)
		}
		buried := all(t, b)
		time.Sleep(2*time.Hour + time.Minute)
		if na, nb := a.Status().Tombstones, b.Status().Tombstones; na != 0 || nb != 0 {
			t.Errorf("%d and %d tombstones after 25 hours", na, nb)
		}
		if !a.Agrees(b.Digest()) {
			t.Error("they do not agree")
		}
		if news, _ := b.Merge(buried); news != 0 {
			t.Error("an old tombstone came back")
		}
		// Who was away brings back what was deleted: the writer deletes it again.
		b.Merge(all(t, away))
		want(t, "names", values(t, b, "name"), map[string]int{"x": 1, "y": 1})
		a.Merge(all(t, b))
		b.Merge(all(t, a))
		away.Merge(all(t, a))
		want(t, "names", values(t, b, "name"), map[string]int{"y": 1})
		if !a.Agrees(b.Digest()) || !a.Agrees(away.Digest()) || a.Status().Twin.Records != 0 {
			t.Error("they do not agree")
		}
	})
}

func TestWatch(t *testing.T) {
	s := open(t, t.TempDir(), 1, Options{})
	names, stop := s.Watch("name", "grant")
	every, stopEvery := s.Watch()
	defer stopEvery()
	got := func(c <-chan struct{}) bool {
		select {
		case <-c:
			return true
		default:
			return false
		}
	}
	put(t, s, "network", "x", 1)
	if got(names) || !got(every) {
		t.Error("a network is told as a name, or not at all")
	}
	for i := range 100 {
		put(t, s, "name", "x", i)
	}
	if !got(names) || got(names) {
		t.Error("100 changes are not one value")
	}
	put(t, s, "name", "x", 99)
	if got(names) {
		t.Error("no change is told")
	}
	stop()
	put(t, s, "name", "x", 1)
	if got(names) {
		t.Error("told after stop")
	}
}

func TestDigest(t *testing.T) {
	a, b := open(t, t.TempDir(), 1, Options{}), open(t, t.TempDir(), 2, Options{})
	for i := range 20 {
		put(t, a, "name", fmt.Sprint(i), i)
	}
	put(t, b, "name", "b", 1)
	b.Merge(all(t, a))
	missing, err := b.Missing(a.Digest())
	if err != nil || len(missing) != 1 || missing[0].Name != "b" {
		t.Errorf("%v, %v", missing, err)
	}
	if n := len(b.Digest()); n != 1+2*16 {
		t.Errorf("%d bytes", n)
	}
	if err := a.Delete("name", "3"); err != nil {
		t.Fatal(err)
	}
	missing, err = a.Missing(b.Digest())
	b.Merge(missing)
	if err != nil || len(b.Records("name")) != 20 {
		t.Errorf("%d names, %v", len(b.Records("name")), err)
	}
	for _, bad := range [][]byte{nil, {}, {2}, {1, 0}, append(b.Digest(), b.Digest()[1:]...)} {
		if _, err := a.Missing(bad); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%x: %v", bad, err)
		}
	}
}

func FuzzDigest(f *testing.F) {
	s := open(f, f.TempDir(), 1, Options{})
	put(f, s, "name", "x", 1)
	f.Add(s.Digest())
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		missing, err := s.Missing(b)
		if err != nil && !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%v is not ErrInvalid", err)
		}
		if len(missing) > 1 {
			t.Errorf("%d records", len(missing))
		}
	})
}
