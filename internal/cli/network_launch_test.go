package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/remora-plugins/remora/internal/control"
)

func TestLaunchedIntoNoCluster(t *testing.T) {
	for cluster, want := range map[string]string{"": "", "abc": "abc\n"} {
		var out, talk strings.Builder
		a := &app{Env: Env{Stdout: &out, Stderr: &talk}}
		if err := a.launched(control.NetworkLaunched{Cluster: cluster}); err != nil {
			t.Fatal(err)
		}
		if out.String() != want || !strings.Contains(talk.String(), "remora network status") {
			t.Errorf("cluster %q: printed %q, said %q", cluster, out.String(), talk.String())
		}
	}
}

func TestNetworkPasswordFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for mode, warned := range map[os.FileMode]bool{0o600: false, 0o640: true, 0o644: true} {
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		var talk strings.Builder
		got, err := (&app{Env: Env{Stderr: &talk}}).networkPassword(&cobra.Command{}, file, "")
		if err != nil || got != "secret" {
			t.Errorf("mode %o: %q, %v", mode, got, err)
		}
		if strings.Contains(talk.String(), "others may read it") != warned {
			t.Errorf("mode %o: said %q", mode, talk.String())
		}
	}
}
