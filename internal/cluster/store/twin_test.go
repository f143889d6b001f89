package store

import (
	"fmt"
	"io/fs"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// copyDir returns a copy of the state in dir.
func copyDir(t *testing.T, dir string) string {
	t.Helper()
	to := t.TempDir()
	entries, err := fs.ReadDir(os.DirFS(dir), ".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(dir + "/" + e.Name())
		if err == nil {
			err = os.WriteFile(to+"/"+e.Name(), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return to
}

// TestSetBack: a host goes on from an old copy of its state. What it said since comes back from the others,
// what it says now is believed.
func TestSetBack(t *testing.T) {
	dir := t.TempDir()
	s, other := open(t, dir, 1, Options{}), open(t, t.TempDir(), 2, Options{})
	put(t, s, "grant", "a", 1)
	put(t, s, "member", "", 1)
	s.Close()
	old := copyDir(t, dir)
	for range 3 {
		s = open(t, dir, 1, Options{})
		for i := range 9 {
			put(t, s, "grant", fmt.Sprint(s.Incarnation(), i), i)
		}
		put(t, s, "member", "", int(s.Incarnation()))
		s.Close()
	}
	other.Merge(all(t, s))

	s = open(t, old, 1, Options{})
	put(t, s, "member", "", 100)
	if news, _ := other.Merge(all(t, s)); news != 0 {
		t.Errorf("%d records were believed before they could be", news)
	}
	s.Merge(all(t, other))
	if st := s.Status(); st.Twin.Records == 0 || st.Incarnation < 5 {
		t.Errorf("%+v", st)
	}
	if n := len(s.Records("grant")); n != 28 {
		t.Errorf("%d grants came back, not 28", n)
	}
	other.Merge(all(t, s))
	want(t, "member", values(t, other, "member"), map[string]int{"": 100})
	if !other.Agrees(s.Digest()) {
		t.Error("they do not agree")
	}
	s.Close()
	s = open(t, old, 1, Options{})
	s.Merge(all(t, other))
	if st := s.Status(); st.Twin.Records != 0 || st.Damage != nil {
		t.Errorf("opened once more: %+v", st)
	}
}

// TestTwoAtOnce: two hosts run on copies of one state. Both say so, and do not outbid each other without end.
func TestTwoAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := open(t, dir, 1, Options{})
		put(t, s, "member", "", 0)
		s.Close()
		a, b := open(t, dir, 1, Options{}), open(t, copyDir(t, dir), 1, Options{})
		put(t, a, "member", "", 1)
		put(t, b, "member", "", 2)
		for range 3600 {
			a.Merge(all(t, b))
			b.Merge(all(t, a))
			time.Sleep(time.Second)
		}
		sa, sb := a.Status(), b.Status()
		if sa.Twin.Records == 0 || sb.Twin.Records == 0 {
			t.Errorf("%+v, %+v", sa.Twin, sb.Twin)
		}
		if sa.Incarnation > 40 || sb.Incarnation > 40 {
			t.Errorf("incarnations %d and %d after an hour", sa.Incarnation, sb.Incarnation)
		}
		want(t, "a", values(t, a, "member"), map[string]int{"": 1})
		want(t, "b", values(t, b, "member"), map[string]int{"": 2})
	})
}
