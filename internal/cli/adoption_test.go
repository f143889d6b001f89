package cli

import (
	"strings"
	"testing"
)

// TestSettle: what the engine is told depends on what the owner of the name does to the data.
func TestSettle(t *testing.T) {
	pool := "remora"
	for _, tt := range []struct{ tool, how, owner, first string }{
		{"local-persist", adoptInPlace, "local-persist", "docker volume rm v   # local-persist forgets it and leaves its data"},
		{"convoy", adoptInPlace, "convoy", "docker volume rm v   # convoy forgets it and leaves its data"},
		{"sshfs", adoptDefine, "vieux/sshfs:latest", "docker volume rm v   # vieux/sshfs:latest has to run for that, but no container with any volume of it"},
		{"sshfs", adoptDefine, "me/sshfs", "docker volume rm v   # me/sshfs has to run"},
		{"rexray", adoptInPlace, "rexray", "# not docker volume rm v, by which REX-Ray deletes the disk"},
		{"rexray", adoptInPlace, "rexray/ebs:latest", "# not docker volume rm v, by which REX-Ray deletes the disk"},
		{"rexray", adoptInPlace, "local", "docker volume rm v   # another volume, of the driver \"local\": its data may go"},
		{"local", adoptCopy, "local", "docker volume rm v   # deletes the original"},
		{"local", adoptInPlace, "local", "# not docker volume rm v, which would delete this data"},
		{"", adoptUnpack, "local", "docker volume rm v   # another volume"},
		{"", adoptUnpack, "", "docker volume create -d remora v"},
		{"convoy", adoptUnpack, "remora", ""},
	} {
		known := engineKnowledge{asked: true, has: map[[2]string]bool{}}
		if tt.owner != "" {
			known.has[[2]string{tt.owner, "v"}] = true
		}
		r := adoption{Name: "v", Old: "v", How: tt.how}
		r.settle(adoptFlags{tool: tt.tool, how: tt.how, pool: &pool}, known)
		if got := strings.Join(r.Commands, "\n"); !strings.HasPrefix(got, tt.first) || tt.first == "" && got != "" {
			t.Errorf("%s of %q: told %q, want %q", tt.tool, tt.owner, got, tt.first)
		}
		if strings.HasPrefix(tt.first, "# not") && len(r.Commands) != 1 {
			t.Errorf("%s of %q: told too much: %q", tt.tool, tt.owner, r.Commands)
		}
	}
}
