package csi

import (
	"slices"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/remora-plugins/remora/test/e2e/lab"
)

// project is the Compose project that the volumes of groups are of.
const project = "shop"

// groups is snapshots of two volumes that a container has, made by one call, and their end.
func (p *proof) groups() {
	p.t.Helper()
	if !p.tap.Facts().Group[csi.GroupControllerServiceCapability_RPC_CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT] {
		p.note("snapshots of two volumes at one moment", "not announced")
		return
	}
	volumes := []string{"db", "files"}
	sums := map[string]string{}
	for _, v := range volumes {
		p.make(v, "--label", "com.docker.compose.project="+project)
		sums[v] = p.fill(v)
	}
	p.MustDocker("run", "-d", "--name", "user", "--network=none", "-v", "db:/db:nocopy", "-v", "files:/files:nocopy", lab.ImageName, "sleep", "1000")
	single := p.calls("CreateSnapshot")
	p.step("remora snapshot create --project, of two volumes", func() {
		if out := p.MustCli("snapshot", "create", "--project", project, "g1"); out != "db@g1\nfiles@g1" {
			p.t.Errorf("printed: %q", out)
		}
	})
	if n, one := p.calls("CreateVolumeGroupSnapshot"), p.calls("CreateSnapshot")-single; n != 1 || one != 0 {
		p.t.Errorf("%d snapshots were made together and %d alone, of two volumes", n, one)
	}
	p.MustDocker("exec", "user", "sh", "-c", "echo changed >/db/blob && echo changed >/files/blob && sync")
	p.MustDocker("rm", "-f", "user")
	p.step("volumes of both, and read them", func() {
		for _, v := range volumes {
			p.create(v+"-then", "from="+v+"@g1")
			p.has(v+"-then", sums[v])
			p.MustDocker("volume", "rm", v+"-then")
		}
	})
	p.ungroup(volumes)
	p.MustDocker(append([]string{"volume", "rm"}, volumes...)...)
}

// ungroup removes the snapshots. By the specification they are deleted together, so that the first to go is kept at the
// storage, where nobody sees it, until the last goes.
func (p *proof) ungroup(volumes []string) {
	p.t.Helper()
	for i, v := range volumes {
		p.step("remora snapshot rm, of "+v, func() { p.MustCli("snapshot", "rm", "--pool", pool, "--yes", v, "g1") })
		if out := p.MustCli("snapshot", "ls", "--pool", pool, "-q", v); out != "" {
			p.t.Errorf("%s still has the snapshots %q", v, out)
		}
		kept := slices.DeleteFunc(p.tap.Left(), func(one string) bool { return strings.HasPrefix(one, "volume ") })
		if last := i == len(volumes)-1; last == (len(kept) > 0) {
			p.t.Errorf("with %d of %d removed the storage has %v", i+1, len(volumes), kept)
		}
	}
	if f := p.tap.Figures()["DeleteVolumeGroupSnapshot"]; f.Calls != 1 || len(f.Errors) > 0 {
		p.t.Errorf("the group was deleted by %d calls, with the errors %v", f.Calls, f.Errors)
	}
}

// calls is how often an RPC was called.
func (p *proof) calls(rpc string) int { return p.tap.Figures()[rpc].Calls }
