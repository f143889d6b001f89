package block

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// Attach brings the disk of a volume to this host, for the next mount or for somebody who wants to
// look at it, and by force takes it from the host that has it. It stays for a while.
func (d *driver) Attach(ctx context.Context, name string, force bool) error {
	if _, err := d.volumeOf(ctx, name); err != nil {
		return err
	}
	key := ""
	if force {
		key = keyForce
	}
	if err := d.do(ctx, jobAttach, name, key, nil); err != nil {
		return err
	}
	if disk, ok := d.x.volume(name); ok {
		if _, mounted, err := d.record(name); err == nil && !mounted {
			d.leave(disk, keepAttached)
		}
	}
	return nil
}

// Import looks for disks of the account that are not ours, by their ID or the name that people
// know them by, all for an empty ref, and says what would become of each. Unless it is dry, those
// that can be taken are: they are tagged, and nothing else is done to them.
func (d *driver) Import(ctx context.Context, ref, name string, dry bool) ([]volume.Imported, error) {
	p, ok := d.p.(Finder)
	if !ok {
		return nil, errdefs.Errorf(errdefs.ErrUnsupported, "%s cannot look for disks that are not Remora's", d.t.Kind)
	}
	found, err := call(ctx, func(ctx context.Context) ([]Foreign, error) { return p.Find(ctx, ref) })
	if err != nil {
		return nil, err
	}
	switch {
	case len(found) == 0 && ref != "":
		return nil, errdefs.Hint(errdefs.Errorf(errdefs.ErrNotFound, "%s has no disk %q that is not Remora's already", d.t.Scope, ref),
			"remora volume import without a disk lists what there is")
	case len(found) > 1 && name != "":
		return nil, errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "there are %d disks called %q", len(found), ref), "give the ID of one of them")
	}
	all := make([]volume.Imported, len(found))
	for i, f := range found {
		plan := d.plan(f, name)
		if plan.Problem == "" && !dry {
			if err := d.importOne(ctx, p, f, plan); err != nil {
				plan.Problem = errdefs.OneLine(err.Error())
			} else {
				plan.Done = true
			}
		}
		all[i] = plan
	}
	return all, nil
}

// plan says what would become of a disk.
func (d *driver) plan(f Foreign, name string) volume.Imported {
	f.Name = printable(f.Name)
	i := volume.Imported{Disk: f.ID, Name: name, Size: f.Size, Zone: f.Zone, From: origins(f)}
	if i.Name == "" {
		i.Name = f.Name
	}
	for _, h := range f.Holders {
		i.Holder = h.Host
	}
	switch _, taken := d.x.volume(i.Name); {
	case i.Name == "":
		i.Problem = "it has no name; give one by --name"
	case volume.CheckName(i.Name) != nil:
		i.Problem = fmt.Sprintf("%q cannot be the name of a volume; give one by --name", i.Name)
	case taken:
		i.Problem = fmt.Sprintf("there is a volume %q already; give another name by --name", i.Name)
	case f.State != Ready:
		i.Problem = "it is " + string(f.State)
	}
	return i
}

// printable shows what a terminal would take for a command.
func printable(name string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsGraphic(r) {
			return r
		}
		return utf8.RuneError
	}, name)
}

// origins tells by whom a disk was made, as far as its tags say.
func origins(f Foreign) string {
	for key := range f.Tags {
		switch {
		case strings.HasPrefix(key, "Convoy"):
			return "Convoy"
		case strings.HasPrefix(key, "flocker-"):
			return "Flocker"
		case strings.HasPrefix(strings.ToLower(key), "libstorage"), strings.HasPrefix(strings.ToLower(key), "rexray"):
			return "REX-Ray"
		}
	}
	return ""
}

const fromImport = "import " // which no name of a volume begins with

// imported tells whether a disk was taken in, and is no copy of one.
func imported(d Disk) bool { return strings.HasPrefix(d.Tags[tagFrom], fromImport) }

// importOne tags a disk. What is on it is looked at by the first mount: that it is never formatted
// is sure from now on.
func (d *driver) importOne(ctx context.Context, p Finder, f Foreign, plan volume.Imported) error {
	if err := d.finds.look(ctx, plan.Name); err != nil {
		return err
	}
	if _, taken := d.x.volume(plan.Name); taken {
		return errdefs.Errorf(errdefs.ErrExists, "another host has made a volume %q meanwhile", plan.Name)
	}
	tags := Tags{
		TagUUID: newUUID(), TagNamespace: d.c.Namespace, TagName: plan.Name,
		tagFormatted: now(), tagRoot: rootAuto, tagFrom: fromImport + cmp.Or(plan.From, "disk"),
	}
	if _, err := call(ctx, just(func(ctx context.Context) error { return p.Adopt(ctx, f, tags) })); err != nil {
		return err
	}
	disk := f.Disk
	disk.Tags = tags
	d.x.put(disk)
	return nil
}

// keepAttached is how long a disk stays attached that was attached by hand.
const keepAttached = 10 * time.Minute
