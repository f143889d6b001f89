package gcepd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/block/blocktest"
	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// wantErr is [blocktest.WantErr] of something that has a name.
func wantErr(t *testing.T, what string, err, class error, words ...string) {
	t.Helper()
	t.Run(strings.ReplaceAll(what, "/", " "), func(t *testing.T) { blocktest.WantErr(t, err, class, "PRIVATE KEY", words...) })
}

// TestWrongPool: each key that is wrong is named, with what would be right.
func TestWrongPool(t *testing.T) {
	ignoreEnvironment(t)
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return file
	}
	for _, tt := range []struct {
		table map[string]any
		words []string
	}{
		{map[string]any{"zone": "us-central1"}, []string{`"zone"`, "us-central1-a"}},
		{map[string]any{"zones": []any{"here"}}, []string{`"zones"`, `"here"`}},
		{map[string]any{"zone": zoneA, "zones": []any{zoneB}}, []string{`"zone"`, "not one of zones"}},
		{map[string]any{"project": "My Project"}, []string{`"project"`, "my-project-123"}},
		{map[string]any{"instance": "host-1"}, []string{`"instance" needs "zone"`}},
		{map[string]any{"type": "gp3"}, []string{`"type"`, "pd-balanced"}},
		{map[string]any{"type": "pd-extreme"}, []string{`"size"`, "500g"}},
		{map[string]any{"iops": int64(5000)}, []string{`"type"`, "pd-balanced"}},
		{map[string]any{"kms_key": "my-key"}, []string{`"kms_key"`, "keyRings"}},
		{map[string]any{"labels": []any{"Env=Prod"}}, []string{`"labels"`, "lower-case"}},
		{map[string]any{"labels": []any{"remora_volume=x"}}, []string{`"labels"`, "not for others"}},
		{map[string]any{"key": "{}", "keyfile": "/x"}, []string{`"key"`, "leave out one"}},
		{map[string]any{"keyfile": filepath.Join(dir, "none")}, []string{`"keyfile"`, "no such file"}},
		{map[string]any{"keyfile": write("open.json", "{}", 0o644)}, []string{"others can read", "chmod 600"}},
		{map[string]any{"keyfile": write("wrong.json", `PRIVATE SECRET`, 0o600)}, []string{"not a key of Google", "gcloud"}},
		{map[string]any{"key": `{"type":"service_account","private_key":"PRIVATE SECRET"}`, "project": project}, []string{"cannot be used"}},
		{map[string]any{"type": "pd-ssd", "defaultDiskType": "pd-standard"}, []string{`"defaultDiskType"`, `"type"`, "leave out one"}},
		{map[string]any{"namespace": "a", "tag": "b"}, []string{`"tag"`, `"namespace"`}},
		{map[string]any{"key_file": "/x"}, []string{"key_file", "keyfile"}},
	} {
		d, err := Driver().Open(t.Context(), tt.table, catalog.Env{PoolName: "p", StateDir: dir, RunDir: dir})
		wantErr(t, cmp.Diff(nil, tt.table), err, errdefs.ErrInvalid, tt.words...)
		if err != nil && strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%v: the key is in the error: %v", tt.table, err)
		}
		if d != nil {
			t.Errorf("%v: there is a driver", tt.table)
		}
	}
}

// TestREXRay: keys and variables of REX-Ray mean what they meant, and ours come before them.
func TestREXRay(t *testing.T) {
	env := map[string]string{
		"GCEPD_KEYFILE": "/k.json", "GCEPD_ZONE": zoneA, "GCEPD_DEFAULTDISKTYPE": "pd-ssd", "GCEPD_TAG": "team", "GCEPD_CONVERTUNDERSCORES": "true",
	}
	standard := func() config { return config{Config: block.Config{Namespace: standardNamespace}, Type: standardType} }
	c := standard()
	used, err := c.fromREXRay(func(k string) string { return env[k] })
	if err != nil || c.Keyfile != "/k.json" || c.Zone != zoneA || c.Type != "pd-ssd" || c.Namespace != "team" || len(used) != 4 {
		t.Errorf("by variables: %+v, %q, %v", c, used, err)
	}
	c = config{Config: block.Config{Namespace: "ours"}, Keyfile: "/o.json", Zone: zoneB, Type: "pd-standard"}
	if used, err = c.fromREXRay(func(k string) string { return env[k] }); err != nil || len(used) != 0 || c.Keyfile != "/o.json" || c.Namespace != "ours" {
		t.Errorf("the pool's own come first: %+v, %q, %v", c, used, err)
	}
	table := map[string]any{"keyfile": "/k.json", "zone": zoneA, "defaultDiskType": "pd-ssd", "tag": "team", "convertUnderscores": true}
	if c, err = catalog.DecodeTable[config](table); err != nil {
		t.Fatal(err)
	}
	if _, err = c.fromREXRay(func(string) string { return "" }); err != nil || c.Type != "pd-ssd" || c.Namespace != "team" {
		t.Errorf("by keys: %+v, %v", c, err)
	}
}

// TestOptions: what Google would refuse is refused with a reason before it is asked.
func TestOptions(t *testing.T) {
	c := config{Config: block.Config{Size: 16 * gib}, Type: standardType, Zones: []string{zoneA, zoneB}}
	no, yes := false, true
	for _, tt := range []struct {
		spec  block.Spec
		words []string // none: it is right
	}{
		{block.Spec{Size: 10 * gib}, nil},
		{block.Spec{Size: 10 * gib, Type: "pd-ssd", Zone: zoneB, Encrypted: &yes}, nil},
		{block.Spec{Size: 4 * gib, Type: "hyperdisk-balanced", IOPS: 3000, Throughput: 140}, nil},
		{block.Spec{Size: 500 * gib, Type: "pd-extreme", IOPS: 20000}, nil},
		{block.Spec{Size: 10 * gib, Extra: map[string]string{"multi_writer": "false"}}, nil},
		{block.Spec{Size: 10 * gib, KMSKey: "projects/p/locations/us/keyRings/r/cryptoKeys/k"}, nil},
		{block.Spec{Size: 10 * gib, Snapshot: &block.Snapshot{ID: "projects/other/global/snapshots/s1"}}, nil},
		{block.Spec{Size: 4 * gib}, []string{"4g", "pd-balanced", "10g"}},
		{block.Spec{Size: 100 * gib, Type: "pd-extreme"}, []string{"500g"}},
		{block.Spec{Size: 10 * gib, Type: "io2"}, []string{`"type"`, "pd-ssd"}},
		{block.Spec{Size: 10 * gib, IOPS: 5000}, []string{`"iops"`, "go by its size", "hyperdisk-balanced"}},
		{block.Spec{Size: 10 * gib, Throughput: 5000}, []string{`"throughput"`, "hyperdisk-throughput"}},
		{block.Spec{Size: 64 * gib, Type: "hyperdisk-extreme", Throughput: 200}, []string{`"throughput"`}},
		{block.Spec{Size: 10 * gib, Zone: "us-central1"}, []string{`"zone"`, "us-central1-a"}},
		{block.Spec{Size: 10 * gib, Zone: zoneC}, []string{`"zone"`, "not one of the pool's"}},
		{block.Spec{Size: 10 * gib, Encrypted: &no}, []string{`"encrypted"`, "every disk"}},
		{block.Spec{Size: 10 * gib, KMSKey: "k"}, []string{`"kms_key"`, "keyRings"}},
		{block.Spec{Size: 10 * gib, Snapshot: &block.Snapshot{ID: "../x"}}, []string{`"snapshot"`}},
		{block.Spec{Size: 10 * gib, Extra: map[string]string{"multi_writer": "true"}}, []string{`"multi_writer"`, "destroyed", "Filestore"}},
	} {
		err := c.checkSpec(&tt.spec)
		if tt.words == nil && err != nil {
			t.Errorf("%+v: %v", tt.spec, err)
		}
		if tt.words != nil {
			wantErr(t, cmp.Diff(block.Spec{}, tt.spec), err, errdefs.ErrInvalid, tt.words...)
		}
	}
}
