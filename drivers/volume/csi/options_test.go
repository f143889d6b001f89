package csi

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/csi/launch"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

func TestDecodeOptions(t *testing.T) {
	for _, tt := range []struct {
		name string
		opts map[string]string
		want map[string]string // by their own names
	}{
		{"REX-Ray", map[string]string{"size": "20", "volumeType": "io1", "iops": "3000", "availabilityZone": "a", "fsType": "xfs"}, map[string]string{"size": "20", "param.type": "io1", "param.iops": "3000", "zone": "a", "fs": "xfs"}},
		{"dashes", map[string]string{"volume-id": "x", "Mount-Options": "noatime"}, map[string]string{"volume_id": "x", "mount_options": "noatime"}},
		{"keys of the CSI driver", map[string]string{"param.Type": "A", "topology.a.b/Zone": "z", "snapparam.x": "1", "mutable.iops": "2"}, map[string]string{"param.Type": "A", "topology.a.b/Zone": "z", "snapparam.x": "1", "mutable.iops": "2"}},
		{"Swarm", map[string]string{"required-bytes": "1073741824", "limit_bytes": "2147483648"}, map[string]string{"size": "1073741824", "limit": "2147483648"}},
	} {
		a, err := decode(tt.opts)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if diff := cmp.Diff(tt.want, a.plain); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
	a, err := decode(map[string]string{"size": "20", "limit": "1099511627776"})
	if err != nil || *a.Size != 20<<30 || *a.Limit != 1<<40 {
		t.Errorf("sizes: %v, %v, %v", *a.Size, *a.Limit, err)
	}
}

func TestWrongOptions(t *testing.T) {
	for _, tt := range []struct {
		opts map[string]string
		want string
	}{
		{map[string]string{"sise": "1g"}, `unknown option "sise", did you mean "size"?`},
		{map[string]string{"fstyp": "xfs"}, `did you mean "fs"?`},
		{map[string]string{"colour": "red"}, `unknown option "colour" (there are: access, `},
		{map[string]string{"secret.password": "hunter2"}, `a secret is no option`},
		{map[string]string{"fs": "xfs", "fstype": "ext4"}, `option "fs" is given twice`},
		{map[string]string{"size": "huge"}, `"huge" is not a size`},
		{map[string]string{"access": "all"}, `"all" is not one of rw-single, `},
		{map[string]string{"subdir": "a/b"}, `"a/b" is not the name of one directory`},
		{map[string]string{"subdir": ".."}, `not the name of one directory`},
		{map[string]string{"param.": "x"}, `want param.KEY=VALUE`},
		{map[string]string{"context.a": "b"}, `volume_id does not say which`},
		{map[string]string{"volume_id": "x", "param.type": "b"}, `the volume "x" is there already`},
		{map[string]string{"volume_id": ""}, `option "volume_id" is empty`},
		{map[string]string{"size": "2g", "limit": "1g"}, `option "limit": 1g is below the size 2g`},
		{map[string]string{"zone": "a", "topology.x": "b"}, `want one of them`},
		{map[string]string{"mount_options": "-o x"}, `is not a mount option`},
	} {
		_, err := decode(tt.opts)
		if !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: %v, want %q", tt.opts, err, tt.want)
		}
		if err != nil && strings.Contains(strings.Join(append(errdefs.Hints(err), err.Error()), " "), "hunter2") {
			t.Errorf("%v: the error shows a secret: %v", tt.opts, err)
		}
	}
}

// What a mount option or a context may hide is not shown to everybody.
func TestShownOptions(t *testing.T) {
	a, err := decode(map[string]string{"mount_options": "password=x", "volume_id": "i", "context.key": "y", "subdir": "data"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"volume_id": "i", "subdir": "data"}, a.shown()); diff != "" {
		t.Errorf("shown (-want +got):\n%s", diff)
	}
}

func TestWrongConfig(t *testing.T) {
	dir := t.TempDir()
	open := filepath.Join(dir, "open")
	if err := os.WriteFile(open, []byte("hunter2"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		table map[string]any
		want  string
	}{
		{map[string]any{}, "none of the keys endpoint, command and image"},
		{map[string]any{"endpoint": "csi.sock"}, "not an absolute path"},
		{map[string]any{"endpoint": "tcp://10.0.0.1:1"}, "unix sockets alone"},
		{map[string]any{"namespace": "Ours"}, `"Ours": want up to 16 lower-case letters`},
		{map[string]any{"detach_after": "-1s"}, "is below nothing"},
		{map[string]any{"timeouts": map[string]any{"CreateVolum": "5s"}}, `did you mean "CreateVolume"?`},
		{map[string]any{"timeouts": map[string]any{"CreateVolume": "soon"}}, `"soon" is not a duration`},
		{map[string]any{"secrets": map[string]any{"key": "hunter2"}}, "no reference to a secret"},
		{map[string]any{"secrets": map[string]any{"key": "file:" + open}}, "others than its owner may read it"},
		{map[string]any{"secrets": map[string]any{"key": "file:" + open + "x"}}, "file does not exist"},
		{map[string]any{"secrets": map[string]any{"key": "env:REMORA_NOT_SET"}}, "is not set"},
		{map[string]any{"quirks": []any{"lies"}}, `unknown quirk "lies"`},
		{map[string]any{"mount_flags": []any{"a b"}}, "is not a mount option"},
		{map[string]any{"size": "much"}, "is not a size"},
		{map[string]any{"parameters": "x"}, "is not a table"},
	} {
		if _, ok := tt.table["endpoint"]; !ok && len(tt.table) > 0 {
			tt.table["endpoint"] = "/run/x.sock"
		}
		// What stands in the table alone is refused by a look at the configuration too.
		_, outside := tt.table["secrets"]
		if err := Driver().Check(tt.table); (err != nil) == outside || !outside && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v, looked at: %v, want %q", tt.table, err, tt.want)
		}
		_, err := Driver().Open(t.Context(), tt.table, catalog.Env{PoolName: "p", StateDir: dir, RunDir: dir})
		if !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: %v, want %q", tt.table, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error shows a secret: %v", err)
		}
	}
}

func TestSecretsAreReadAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("old\n")
	t.Setenv("REMORA_TEST_SECRET", "env")
	c := config{Keys: launch.Keys{Endpoint: "/run/x.sock"}, Namespace: "a", Secrets: map[string]string{"a": "file:" + path, "b": "env:REMORA_TEST_SECRET"}}
	s, err := c.check()
	if err != nil {
		t.Fatal(err)
	}
	write("new\n")
	got, err := s.secrets.get()
	if diff := cmp.Diff(map[string]string{"a": "new", "b": "env"}, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := s.secrets.get(); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("without the file: %v", err)
	}
}
