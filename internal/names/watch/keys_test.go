package watch

import (
	"regexp"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/internal/cluster/record"
)

func TestKeys(t *testing.T) {
	if diff := cmp.Diff([]string{"docker", "docker-two"}, Keys([]string{"/run/docker.sock", "/run/docker-two.sock"})); diff != "" {
		t.Error(diff)
	}
	got := Keys([]string{"/run/docker.sock", "/run/two/docker.sock", "/run/three/docker.sock", "/run/hand.sock"}, "hand")
	form := regexp.MustCompile(`^(docker|hand)-[0-9a-f]{8}$`)
	if got[0] != "docker" || !form.MatchString(got[1]) || !form.MatchString(got[2]) || !form.MatchString(got[3]) || got[1] == got[2] {
		t.Errorf("keys are %q", got)
	}
}

func TestForget(t *testing.T) {
	s := newStore()
	for _, name := range []string{"docker/c1/n", "docker-2/c2/n", "hand/printer", "netavark/c3/n"} {
		for _, writer := range []record.Host{s.Self(), {2}} {
			if err := s.put(writer, record.KindName, name, record.Name{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := Forget(s, "docker", "hand", "netavark"); err != nil {
		t.Fatal(err)
	}
	want := []string{"docker/c1/n", "docker/c1/n", "docker-2/c2/n", "hand/printer", "hand/printer", "netavark/c3/n", "netavark/c3/n"}
	if got := s.keys(); !slices.Equal(got, sorted(want)) {
		t.Errorf("left are %q, want %q", got, want)
	}
	s.failing = true
	if err := Forget(s); err == nil {
		t.Error("what stays is no error")
	}
}

func sorted(all []string) []string { slices.Sort(all); return all }
