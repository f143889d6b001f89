package dobs

import (
	"context"
	"errors"
	"maps"
	"regexp"
	"strings"

	"github.com/digitalocean/godo"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

var idForm = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// Find returns disks that are not ours. Those of Kubernetes are found by who asks for one of them.
func (p *provider) Find(ctx context.Context, ref string) ([]block.Foreign, error) {
	list, err := p.candidates(ctx, ref)
	if err != nil {
		return nil, err
	}
	var all []block.Foreign
	for _, v := range list {
		d := disk(v)
		if d.Tags[block.TagUUID] != "" && d.Tags[block.TagNamespace] != "" || ref == "" && ofKubernetes(v) {
			continue
		}
		f := block.Foreign{Disk: d, Name: v.Name}
		if ref != "" && ref != v.ID {
			f.Name = ref // as engines know it
		}
		f.Tags = block.Tags{}
		for _, tag := range v.Tags {
			f.Tags[tag] = ""
		}
		all = append(all, f)
	}
	return all, nil
}

// candidates lists what ref may be: an ID, or a name. REX-Ray made a dash of an underscore in a name
// (convertUnderscores), as none can have one.
func (p *provider) candidates(ctx context.Context, ref string) ([]godo.Volume, error) {
	if !idForm.MatchString(ref) {
		return p.volumes(ctx, strings.ReplaceAll(ref, "_", "-"), "")
	}
	v, err := p.get(ctx, ref)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return []godo.Volume{*v}, nil
}

// ofKubernetes tells whether a volume was made by DigitalOcean's driver for Kubernetes.
func ofKubernetes(v godo.Volume) bool {
	if strings.Contains(v.Description, "DigitalOcean CSI driver") {
		return true
	}
	for _, tag := range v.Tags {
		if tag == "k8s" || strings.HasPrefix(tag, "k8s:") {
			return true
		}
	}
	return false
}

// Adopt writes our tags on a disk. Its name stays, and so do its own tags. That it is formatted is
// written before what makes it ours.
func (p *provider) Adopt(ctx context.Context, f block.Foreign, tags block.Tags) error {
	d := f.Disk
	p.forget(d.ID)
	return p.SetTags(ctx, d, maps.Clone(tags))
}
