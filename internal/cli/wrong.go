package cli

// What is said of a command line that is wrong.

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// usage makes the errors of an argument check errors of the command line.
func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError(cmd, miscounted(cmd, args, err))
		}
		return nil
	}
}

// miscounted says which argument is missing, or is one too many, where cobra says how many there are.
func miscounted(cmd *cobra.Command, args []string, err error) error {
	text := err.Error()
	if strings.HasPrefix(text, "unknown command") { // that is what cobra calls an argument too many
		return fmt.Errorf("takes no argument, and there is %q", args[0])
	}
	if !strings.HasPrefix(text, "accepts ") && !strings.HasPrefix(text, "requires at least ") {
		return err
	}
	counts := number.FindAllString(text, -1) // the last is how many there are, the one before how many there may be
	limit, _ := strconv.Atoi(counts[len(counts)-2])
	words := strings.Fields(cmd.Use)[1:]
	switch {
	case len(args) > limit:
		return fmt.Errorf("one argument too many: %q", args[limit])
	case len(args) < len(words) && !slices.Contains(words, "|"):
		return fmt.Errorf("argument %s is missing", strings.Trim(words[len(args)], "{}[]."))
	}
	return err
}

var number = regexp.MustCompile(`\d+`)

func usageError(cmd *cobra.Command, err error) error {
	text := strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", " ")
	return argsError{errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "%s: %s", cmd.CommandPath(), text),
		"usage: "+cmd.UseLine())}
}

// names checks for one argument at least.
func names(what string) cobra.PositionalArgs {
	return usage(func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			return fmt.Errorf("name one %s at least", what)
		}
		return nil
	})
}

// group is the run of a command that only has commands below it.
func group(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	near := ""
	cmd.SuggestionsMinimumDistance = 2
	if all := cmd.SuggestionsFor(args[0]); len(all) > 0 {
		near = fmt.Sprintf(", did you mean %q?", all[0])
	}
	return usageError(cmd, fmt.Errorf("unknown command %q%s", args[0], near))
}

// elsewhere is how other programs call a flag, Docker's command line first of all.
var elsewhere = map[string]string{"driver": "pool", "d": "pool", "force": "yes", "f": "yes", "repository": "repo"}

// goNumber is what Go says of a number that is none, behind the flag and its value.
var goNumber = regexp.MustCompile(`strconv\.\w+: parsing ".*": invalid syntax$`)

// flagError says what is wrong with a flag, and which one was probably meant.
func flagError(cmd *cobra.Command, err error) error {
	if unknown, ok := errors.AsType[*pflag.NotExistError](err); ok {
		if near := nearFlag(cmd, unknown.GetSpecifiedName()); near != "" {
			err = fmt.Errorf("%w, did you mean --%s?", err, near)
		}
		return usageError(cmd, err)
	}
	return usageError(cmd, errors.New(goNumber.ReplaceAllString(err.Error(), "want a number")))
}

func nearFlag(cmd *cobra.Command, word string) string {
	if meant := elsewhere[word]; meant != "" && cmd.Flags().Lookup(meant) != nil {
		return meant
	}
	if len(word) == 1 {
		return ""
	}
	var all []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			all = append(all, f.Name)
		}
	})
	return catalog.Nearest(word, all)
}
