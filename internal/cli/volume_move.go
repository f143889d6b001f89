package cli

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

func (a *app) volumeMove() *cobra.Command {
	cmd := &cobra.Command{
		Use: "move NAME", Short: "Bring the disk of a volume to another zone, region or pool",
		Long: "Bring a volume whose disk is out of reach here to another zone of its cloud, to another region, or\n" +
			"to another pool of the same driver, such as one of another account: by a snapshot of the disk, of\n" +
			"which another disk is made there. The name and the data stay as they are. Snapshots of the volume\n" +
			"stay with it within a region, and otherwise with the old disk.\n\n" +
			"No container may use the volume, and none can until it is moved. The old disk comes into the trash,\n" +
			"so that nothing dies. What fails is undone. Ctrl-C ends the waiting and not the move, of which\n" +
			"\"remora jobs\" tells; it goes on after a crash, and the same command, on any host, waits for it or\n" +
			"goes on with it. A move to the zone where the volume is now gives up one that was begun.\n\n" +
			"--region wants a pool of the same driver in that region. Between drivers, back the volume up and\n" +
			"restore it in the other pool.",
		Args: names("volume"),
	}
	pool := a.poolFlag(cmd, defaultPoolHelp)
	zone := cmd.Flags().String("zone", "", "`zone` that it is to be in")
	region := cmd.Flags().String("region", "", "`region` that it is to be in")
	to := cmd.Flags().String("to-pool", "", "`pool` that it is to be in")
	cmd.MarkFlagsMutuallyExclusive("region", "to-pool")
	cmd.ValidArgsFunction = a.completeVolumes(pool, 1)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usageError(cmd, errors.New("want one NAME"))
		}
		req := control.VolumeMoveRequest{Pool: *pool, Name: args[0], Zone: *zone, Region: *region, ToPool: *to}
		if req.Zone == "" && req.Region == "" && req.ToPool == "" {
			return usageError(cmd, errors.New("want --zone, --region or --to-pool"))
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		defer c.Close()
		if err := a.moving(cmd.Context(), c, req); err != nil {
			return err
		}
		return a.printf("%s\n", args[0])
	}
	return cmd
}

// moving asks for a move until it is at its end, and says how far it is.
func (a *app) moving(ctx context.Context, c *control.Client, req control.VolumeMoveRequest) error {
	told, stop := context.WithCancel(ctx)
	said := make(chan struct{})
	go func() {
		defer close(said)
		for last := ""; ; {
			select {
			case <-time.After(2 * time.Second):
			case <-told.Done():
				return
			}
			if job, ok := moveJob(told, c, req); ok && job.State != "" && job.State != last {
				a.sayf("remora: %s: %s\n", req.Name, job.State)
				last = job.State
			}
		}
	}()
	defer func() { stop(); <-said }()
	for {
		err := c.Disks().Move(ctx, req)
		if !errors.Is(err, errdefs.ErrUnavailable) || ctx.Err() != nil {
			return err
		}
		if _, goes := moveJob(ctx, c, req); !goes {
			return err
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return err
		}
	}
}

// moveJob returns the job that moves a volume, if it still does.
func moveJob(ctx context.Context, c *control.Client, req control.VolumeMoveRequest) (control.Job, bool) {
	list, err := c.Disks().Jobs(ctx, control.JobListRequest{Pool: req.Pool})
	if err != nil {
		return control.Job{}, false
	}
	i := slices.IndexFunc(list.Jobs, func(j control.Job) bool { return j.Kind == "move" && j.Object == req.Name && !j.Failed })
	if i < 0 {
		return control.Job{}, false
	}
	return list.Jobs[i], true
}
