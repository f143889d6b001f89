package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/remora-plugins/remora/internal/control"
)

// prove has backups restored to where they are thrown away again, and shows what came of it.
func (a *app) prove(ctx context.Context, b control.Backups, req control.BackupListRequest, f format) error {
	bar := a.bar()
	p, err := b.Prove(ctx, req, bar.show)
	bar.end()
	if err != nil {
		return err
	}
	if f == "json" {
		err = a.printJSON(p.Proofs)
	} else {
		err = a.proofs(p.Proofs)
	}
	failed := false
	for _, one := range p.Proofs {
		if one.Error != "" {
			a.sayf("remora: backup %s of volume %q: %s\n", short(one.Backup), one.Volume, one.Error)
			failed = true
		}
	}
	if err == nil && failed {
		err = failure{exitFailed}
	}
	return err
}

// proofs prints a table of proofs.
func (a *app) proofs(all []control.Proof) error {
	rows := make([][]string, 0, len(all))
	for _, p := range all {
		state := "ok"
		if p.Error != "" {
			state = "failed " + ago(p.At)
			if len(p.Error) > proofErrorWidth {
				state += fmt.Sprintf(": %.*s…", proofErrorWidth, p.Error)
			} else {
				state += ": " + p.Error
			}
		}
		proven, took, backup := "never", "-", "-"
		if !p.Proven.IsZero() {
			proven, took, backup = ago(p.Proven), seconds(p.ProvenSeconds), short(p.ProvenBackup)
		}
		rows = append(rows, []string{p.Repository, p.Pool, p.Volume, proven, took, backup, state})
	}
	return a.table([]string{"REPOSITORY", "POOL", "VOLUME", "PROVEN", "TOOK", "BACKUP", "STATE"}, rows)
}

// proofErrorWidth is how much of an error a table shows.
const proofErrorWidth = 120

// seconds says how long something took.
func seconds(n float64) string {
	d := time.Duration(n * float64(time.Second))
	if d < 10*time.Second {
		return fmt.Sprintf("%.1fs", n)
	}
	return d.Round(time.Second).String()
}
