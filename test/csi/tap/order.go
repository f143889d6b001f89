package tap

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/moby/sys/mountinfo"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// order holds callers to the life of a volume that the specification has: created, attached, staged, published, and
// back; one call at a time for each volume.
type order struct {
	volumes    map[string]*life
	violations []string
}

// life is where a volume is. What a call that failed has left is not known, and is not held against anyone.
type life struct {
	calls     []string        // in flight
	attached  map[string]bool // by node
	staged    map[string]bool // by path
	published map[string]bool // by target
	paths     map[string]bool // all at which it ever was
}

func newOrder() order { return order{volumes: map[string]*life{}} }

func (o *order) volume(id string) *life {
	l := o.volumes[id]
	if l == nil {
		l = &life{attached: map[string]bool{}, staged: map[string]bool{}, published: map[string]bool{}, paths: map[string]bool{}}
		o.volumes[id] = l
	}
	return l
}

func (o *order) broken(format string, args ...any) {
	o.violations = append(o.violations, fmt.Sprintf(format, args...))
}

// gone tells whether an error says that there is nothing to undo any more.
func gone(err error) bool { return err == nil || status.Code(err) == codes.NotFound }

// asked is what a call is about.
type asked struct {
	id           string
	others       []string // volumes besides
	before, done func(l *life)
	ends         bool // an answer "not found" is as good as none
}

// begin looks at a call before it is passed on.
func (o *order) begin(name string, ask frame, facts Facts) func(error) {
	a, ok := o.read(name, ask, facts)
	if !ok || a.id == "" {
		return func(error) {}
	}
	all := append([]string{a.id}, a.others...)
	for _, id := range all {
		l := o.volume(id)
		if len(l.calls) > 0 {
			o.broken("%s: %s while %s is in flight", id, name, strings.Join(l.calls, ", "))
		}
		l.calls = append(l.calls, name)
	}
	l := o.volume(a.id)
	if a.before != nil {
		a.before(l)
	}
	return func(err error) {
		for _, id := range all {
			of := o.volume(id)
			i := slices.Index(of.calls, name)
			of.calls = slices.Delete(of.calls, i, i+1)
		}
		if a.done != nil && (err == nil || a.ends && gone(err)) {
			a.done(l)
		}
	}
}

func (o *order) read(name string, ask frame, facts Facts) (asked, bool) {
	attach := facts.Controller[csi.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME]
	stage := facts.Node[csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME]
	switch name {
	case "CreateVolume":
		var m csi.CreateVolumeRequest
		ok := ask.read(&m)
		return asked{id: "name " + m.GetName()}, ok
	case "DeleteVolume":
		var m csi.DeleteVolumeRequest
		ok := ask.read(&m)
		id := m.GetVolumeId()
		return asked{id: id, before: func(l *life) {
			if n := len(l.published) + len(l.staged) + len(l.attached); n > 0 {
				o.broken("%s: deleted while it is in use: %s", id, l)
			}
		}}, ok
	case "ControllerPublishVolume":
		var m csi.ControllerPublishVolumeRequest
		ok := ask.read(&m)
		node := m.GetNodeId()
		return asked{id: m.GetVolumeId(), done: func(l *life) { l.attached[node] = true }}, ok
	case "ControllerUnpublishVolume":
		var m csi.ControllerUnpublishVolumeRequest
		ok := ask.read(&m)
		id, node := m.GetVolumeId(), m.GetNodeId()
		return asked{id: id, ends: true, before: func(l *life) {
			if len(l.published)+len(l.staged) > 0 {
				o.broken("%s: detached while it is mounted: %s", id, l)
			}
			o.unmounted(id, "detached", l, "")
		}, done: func(l *life) { delete(l.attached, node) }}, ok
	case "NodeStageVolume":
		var m csi.NodeStageVolumeRequest
		ok := ask.read(&m)
		id, at := m.GetVolumeId(), m.GetStagingTargetPath()
		return asked{id: id, before: func(l *life) {
			if attach && len(l.attached) == 0 {
				o.broken("%s: staged and not attached", id)
			}
			if info, err := os.Stat(at); err != nil || !info.IsDir() {
				o.broken("%s: staged at %s, which is no directory: %v", id, at, err)
			}
		}, done: func(l *life) { l.staged[at], l.paths[at] = true, true }}, ok
	case "NodeUnstageVolume":
		var m csi.NodeUnstageVolumeRequest
		ok := ask.read(&m)
		id, at := m.GetVolumeId(), m.GetStagingTargetPath()
		return asked{id: id, ends: true, before: func(l *life) {
			if len(l.published) > 0 {
				o.broken("%s: unstaged while it is published: %s", id, l)
			}
			o.unmounted(id, "unstaged", l, at)
		}, done: func(l *life) { delete(l.staged, at) }}, ok
	case "NodePublishVolume":
		var m csi.NodePublishVolumeRequest
		ok := ask.read(&m)
		id, at, from := m.GetVolumeId(), m.GetTargetPath(), m.GetStagingTargetPath()
		return asked{id: id, before: func(l *life) {
			switch {
			case attach && len(l.attached) == 0:
				o.broken("%s: published and not attached", id)
			case stage && !l.staged[from]:
				o.broken("%s: published from %q, where it is not staged", id, from)
			}
		}, done: func(l *life) { l.published[at], l.paths[at] = true, true }}, ok
	case "NodeUnpublishVolume":
		var m csi.NodeUnpublishVolumeRequest
		ok := ask.read(&m)
		at := m.GetTargetPath()
		return asked{id: m.GetVolumeId(), ends: true, done: func(l *life) { delete(l.published, at) }}, ok
	case "CreateSnapshot":
		var m csi.CreateSnapshotRequest
		ok := ask.read(&m)
		return asked{id: m.GetSourceVolumeId()}, ok
	case "CreateVolumeGroupSnapshot":
		var m csi.CreateVolumeGroupSnapshotRequest
		ok := ask.read(&m) && len(m.GetSourceVolumeIds()) > 0
		if !ok {
			return asked{}, false
		}
		return asked{id: m.GetSourceVolumeIds()[0], others: m.GetSourceVolumeIds()[1:]}, true
	case "ControllerExpandVolume":
		var m csi.ControllerExpandVolumeRequest
		ok := ask.read(&m)
		return asked{id: m.GetVolumeId()}, ok
	case "NodeExpandVolume":
		var m csi.NodeExpandVolumeRequest
		ok := ask.read(&m)
		id := m.GetVolumeId()
		return asked{id: id, before: func(l *life) {
			if !l.published[m.GetVolumePath()] && !l.staged[m.GetVolumePath()] {
				o.broken("%s: expanded at %s, where it is not mounted", id, m.GetVolumePath())
			}
		}}, ok
	}
	return asked{}, false
}

// unmounted looks whether what the driver said to have unmounted is so, but for one path.
func (o *order) unmounted(id, what string, l *life, but string) {
	mounted, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		return !l.paths[m.Mountpoint] || m.Mountpoint == but, false
	})
	if err != nil {
		o.broken("%s: look for mounts: %v", id, err)
	}
	for _, m := range mounted {
		o.broken("%s: %s while %s is mounted", id, what, m.Mountpoint)
	}
}

func (l *life) String() string {
	var parts []string
	for what, set := range map[string]map[string]bool{"attached": l.attached, "staged": l.staged, "published": l.published} {
		for at := range set {
			parts = append(parts, what+" at "+at)
		}
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}

func (o *order) up() (all []string) {
	for id, l := range o.volumes {
		if text := l.String(); text != "" {
			all = append(all, id+": "+text)
		}
	}
	slices.Sort(all)
	return all
}
