package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

func (a *app) undoCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "undo [NAME|ID]",
		Short: "List the volumes that were removed, or bring one back",
		Long: "List the volumes that were removed and are in the trash still, or bring one back, with its\n" +
			"data and its snapshots. Of several that had the name the youngest comes; the ID names one\n" +
			"exactly. How long they are kept is trash.keep in the configuration.",
		Args: usage(cobra.MaximumNArgs(1)),
	}
	pool := a.poolFlag(cmd, "all")
	as := cmd.Flags().String("as", "", "bring it back as `NAME`")
	f := formatFlag(cmd)
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		var names []string
		if len(args) == 0 {
			a.ask(cmd.Context(), func(ctx context.Context, c *control.Client) error {
				l, err := c.Storage().Trash(ctx, control.TrashListRequest{Pool: *pool})
				for _, t := range l.Trashed {
					names = append(names, t.Name)
				}
				slices.Sort(names)
				names = slices.Compact(names)
				return err
			})
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			if *as != "" {
				return usageError(cmd, errors.New("--as: name what is to come back"))
			}
			return a.listTrash(cmd.Context(), *pool, *f)
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		defer c.Close()
		list, err := c.Storage().Trash(cmd.Context(), control.TrashListRequest{Pool: *pool})
		if err != nil {
			return err
		}
		t, err := a.choose(list, args[0])
		if err != nil {
			return err
		}
		name := t.Name
		if *as != "" {
			name = *as
		}
		v, err := c.Storage().Restore(cmd.Context(), control.TrashRestoreRequest{Pool: t.Pool, ID: t.ID, Name: name})
		if errors.Is(err, errdefs.ErrExists) && *as == "" {
			err = errdefs.Hint(err, fmt.Sprintf("remora undo %s --as NEWNAME", t.ID))
		}
		if err != nil {
			return err
		}
		if *f == "json" {
			return a.printJSON(v)
		}
		return a.printf("%s\n", v.Name)
	}
	return cmd
}

// choose finds what somebody means who gives an ID or a name: the youngest of it, and says so
// where there are several.
func (a *app) choose(list control.TrashList, word string) (control.Trashed, error) {
	var found []control.Trashed
	for _, t := range list.Trashed {
		if t.ID == word {
			return t, nil
		}
		if t.Name == word {
			found = append(found, t)
		}
	}
	if len(found) == 0 {
		for _, text := range list.Errors {
			a.sayf("remora: %s\n", text)
		}
		return control.Trashed{}, errdefs.Hint(errdefs.Errorf(errdefs.ErrNotFound, "volume %q: not in the trash", word),
			"\"remora undo\" lists what is")
	}
	youngest := slices.MaxFunc(found, func(a, b control.Trashed) int { return a.RemovedAt.Compare(b.RemovedAt) })
	if len(found) > 1 {
		a.sayf("%d volumes %q are in the trash; the youngest, removed %s from pool %s, comes back\n", len(found), word, ago(youngest.RemovedAt), youngest.Pool)
	}
	return youngest, nil
}

func (a *app) listTrash(ctx context.Context, pool string, f format) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	defer c.Close()
	list, err := c.Storage().Trash(ctx, control.TrashListRequest{Pool: pool})
	if err != nil {
		return err
	}
	if f == "json" {
		return a.partly(a.printJSON(list.Trashed), list.Errors)
	}
	rows := make([][]string, 0, len(list.Trashed))
	for _, t := range list.Trashed {
		rows = append(rows, []string{t.Pool, t.Name, ago(t.RemovedAt), t.ID, until(t.Expires)})
	}
	return a.partly(a.table([]string{"POOL", "VOLUME", "REMOVED", "ID", "EXPIRES"}, rows), list.Errors)
}

func (a *app) trashCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "trash", Short: "Look at the volumes that were removed, and destroy them", RunE: group}
	cmd.AddCommand(a.trashList(), a.trashRemove(), a.trashEmpty())
	return cmd
}

func (a *app) trashList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List what is in the trash, as \"remora undo\" does",
		Args: usage(cobra.NoArgs), ValidArgsFunction: cobra.NoFileCompletions,
	}
	pool := a.poolFlag(cmd, "all")
	f := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return a.listTrash(cmd.Context(), *pool, *f) }
	return cmd
}

func (a *app) trashRemove() *cobra.Command {
	cmd := &cobra.Command{
		Use: "rm ID...", Aliases: []string{"remove"}, SuggestFor: []string{"delete"}, Short: "Destroy volumes that are in the trash",
		Long: "Destroy volumes that are in the trash, by their IDs. On a terminal it asks first; elsewhere it\n" +
			"wants --yes.",
		Args: names("ID"), ValidArgsFunction: cobra.NoFileCompletions,
	}
	pool := a.poolFlag(cmd, "all")
	yes := yesFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.purge(cmd, *pool, *yes, func(t control.Trashed) bool { return slices.Contains(args, t.ID) }, args)
	}
	return cmd
}

func (a *app) trashEmpty() *cobra.Command {
	cmd := &cobra.Command{
		Use: "empty", Short: "Destroy all volumes that are in the trash",
		Long: "Destroy all volumes that are in the trash of all pools, or of one. On a terminal it asks first;\n" +
			"elsewhere it wants --yes.",
		Args: usage(cobra.NoArgs), ValidArgsFunction: cobra.NoFileCompletions,
	}
	pool := a.poolFlag(cmd, "all")
	yes := yesFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.purge(cmd, *pool, *yes, func(control.Trashed) bool { return true }, nil)
	}
	return cmd
}

// purge destroys what is in the trash and meant. ids are those that have to be there.
func (a *app) purge(cmd *cobra.Command, pool string, yes bool, meant func(control.Trashed) bool, ids []string) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	defer c.Close()
	list, err := c.Storage().Trash(cmd.Context(), control.TrashListRequest{Pool: pool})
	if err != nil {
		return err
	}
	pools, names := map[string]string{}, map[string]string{}
	for _, t := range list.Trashed {
		if meant(t) {
			pools[t.ID], names[t.ID] = t.Pool, t.Name
			if len(ids) == 0 || !slices.Contains(ids, t.ID) {
				ids = append(ids, t.ID)
			}
		}
	}
	if len(ids) > 0 && !yes {
		if err := a.confirm(cmd, fmt.Sprintf("Destroy %d volumes in the trash and all data in them, for good?", len(ids))); err != nil {
			return err
		}
	}
	err = a.each(ids, func(id string) error {
		if pools[id] == "" {
			return errdefs.Errorf(errdefs.ErrNotFound, "%q: not in the trash", id)
		}
		if err := c.Storage().Purge(cmd.Context(), control.TrashRequest{Pool: pools[id], ID: id}); err != nil {
			return err
		}
		return a.printf("%s\n", names[id])
	})
	return a.partly(err, list.Errors)
}
