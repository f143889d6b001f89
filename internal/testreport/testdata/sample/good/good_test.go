package good

import "testing"

func TestPass(t *testing.T) {}

func TestParts(t *testing.T) {
	t.Run("one", func(t *testing.T) {})
	t.Run("two", func(t *testing.T) {})
	t.Run("podman", func(t *testing.T) { t.Skip("needs podman: no podman in PATH") })
}

func TestSystemd(t *testing.T) { t.Skipf("needs %s: it did not start this machine", "systemd") }

func TestOther(t *testing.T) { t.Skip("no terminal to be had") }

func FuzzSeeds(f *testing.F) {
	f.Add("a")
	f.Fuzz(func(*testing.T, string) {})
}
