package blocktest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/test/cloud/machine"
)

type refSnapshot struct {
	block.Snapshot
	file string
}

func (p *refProvider) Snapshots(ctx context.Context, q block.Query) ([]block.Snapshot, error) {
	return ask(ctx, p, "Snapshots", func() ([]block.Snapshot, error) {
		var all []block.Snapshot
		for _, s := range p.c.snaps {
			if s.Tags[block.TagNamespace] == q.Namespace && q.Takes(s.ID, s.Tags[block.TagName]) {
				all = append(all, s.Snapshot)
			}
		}
		return all, nil
	})
}

func (p *refProvider) CreateSnapshot(ctx context.Context, disk block.Disk, tags block.Tags) (block.Snapshot, error) {
	return ask(ctx, p, "CreateSnapshot", func() (block.Snapshot, error) {
		for _, s := range p.c.snaps {
			if s.Tags[block.TagUUID] == tags[block.TagUUID] {
				return s.Snapshot, nil
			}
		}
		d, err := p.disk(disk.ID)
		if err != nil {
			return block.Snapshot{}, err
		}
		p.c.next++
		s := &refSnapshot{Snapshot: block.Snapshot{
			ID: fmt.Sprintf("snap-%06d", p.c.next), Tags: maps.Clone(tags), Size: d.Size, State: block.Creating, Created: time.Now(),
		}}
		s.file = filepath.Join(p.c.dir, s.ID+".snap")
		if err := machine.Copy(s.file, d.file); err != nil {
			return block.Snapshot{}, err
		}
		p.c.snaps[s.ID] = s
		p.c.later(func() { s.State = block.Ready })
		return s.Snapshot, nil
	})
}

func (p *refProvider) DeleteSnapshot(ctx context.Context, sn block.Snapshot) error {
	_, err := ask(ctx, p, "DeleteSnapshot", func() (struct{}, error) {
		s, ok := p.c.snaps[sn.ID]
		if !ok {
			return struct{}{}, nil
		}
		delete(p.c.snaps, sn.ID)
		return struct{}{}, os.Remove(s.file)
	})
	return err
}

func (p *refRollbacker) Rollback(ctx context.Context, disk block.Disk, sn block.Snapshot) error {
	_, err := ask(ctx, p.refProvider, "Rollback", func() (struct{}, error) {
		d, err := p.disk(disk.ID)
		if err != nil {
			return struct{}{}, err
		}
		s, ok := p.c.snaps[sn.ID]
		if !ok || len(d.Holders) > 0 {
			return struct{}{}, errdefs.Errorf(errdefs.ErrInUse, "disk %s is attached", d.ID)
		}
		temp := d.file + ".new"
		if err := machine.Copy(temp, s.file); err != nil {
			return struct{}{}, err
		}
		return struct{}{}, errors.Join(os.Truncate(temp, d.Size), os.Rename(temp, d.file))
	})
	return err
}
