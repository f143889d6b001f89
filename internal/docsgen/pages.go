package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/cli"
	"github.com/remora-plugins/remora/internal/config"
	"github.com/remora-plugins/remora/internal/daemon"
)

// pages returns the text of every page by the name of its file.
func pages(drivers []catalog.Volume) map[string]string {
	return map[string]string{
		"cli.md":     commands(cli.Root(drivers)),
		"config.md":  configuration(drivers),
		"metrics.md": metrics(daemon.Metrics()),
	}
}

// generated stands at the top of every page.
const generated = "<!-- Written by \"make docs\" from the code. Do not edit. -->\n\n"

// cell makes a text fit for a cell of a table.
var cell = strings.NewReplacer("|", `\|`, "\n", " ")

// code returns a text as code, and nothing for nothing.
func code(text string) string {
	if text == "" {
		return ""
	}
	return "`" + cell.Replace(text) + "`"
}

func commands(root *cobra.Command) string {
	var b strings.Builder
	about, statuses := cutStatuses(root.Long)
	fmt.Fprintf(&b, "%s# The command line\n\n%s\n\n", generated, about)
	b.WriteString("Results go to standard output and talk to standard error. `--help` shows the help of any command.\n\n")
	fmt.Fprintf(&b, "%s\n\nFlags of every command:\n\n%s", statuses, flags(root.PersistentFlags()))
	for _, cmd := range root.Commands() {
		command(&b, cmd)
	}
	b.WriteString(completion)
	return b.String()
}

// cutStatuses parts the help of a command from what every help ends with.
func cutStatuses(long string) (about, statuses string) {
	i := strings.LastIndex(long, "\n\nExit status:")
	if i < 0 {
		return long, ""
	}
	return long[:i], strings.TrimSpace(long[i:])
}

// command describes a command and all below it.
func command(b *strings.Builder, cmd *cobra.Command) {
	if cmd.Hidden {
		return
	}
	long := cmd.Long
	if long == "" {
		long = cmd.Short + "."
	}
	about, _ := cutStatuses(long)
	fmt.Fprintf(b, "\n## %s\n\n%s\n", cmd.CommandPath(), strings.TrimSpace(about))
	if cmd.HasAvailableSubCommands() {
		b.WriteString("\n")
		for _, sub := range cmd.Commands() {
			if !sub.Hidden {
				fmt.Fprintf(b, "* [%s](#%s): %s\n", sub.CommandPath(), strings.ReplaceAll(sub.CommandPath(), " ", "-"), sub.Short)
			}
		}
	} else {
		fmt.Fprintf(b, "\n```text\n%s\n```\n", cmd.UseLine())
	}
	if len(cmd.Aliases) > 0 {
		fmt.Fprintf(b, "\nAlso called %s.\n", code(strings.Join(cmd.Aliases, "`, `")))
	}
	if own := cmd.NonInheritedFlags(); own.HasAvailableFlags() {
		fmt.Fprintf(b, "\n%s", flags(own))
	}
	for _, sub := range cmd.Commands() {
		command(b, sub)
	}
}

// flags returns a table of flags. The flag --help is known to everybody.
func flags(set *pflag.FlagSet) string {
	var rows []string
	set.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		value, help := pflag.UnquoteUsage(f)
		name := strings.TrimSpace("--" + f.Name + " " + value)
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		def := f.DefValue
		if def == "false" || def == "[]" {
			def = ""
		}
		rows = append(rows, fmt.Sprintf("| %s | %s | %s |\n", code(name), code(def), cell.Replace(help)))
	})
	if len(rows) == 0 {
		return ""
	}
	return "| Flag | Default | What it does |\n|---|---|---|\n" + strings.Join(rows, "")
}

func configuration(drivers []catalog.Volume) string {
	var b strings.Builder
	fmt.Fprintf(&b, configHead, generated, config.DefaultFile, example)
	b.WriteString("## Keys\n\n| Key | Variable | Type | Default | What it does |\n|---|---|---|---|---|\n")
	for _, k := range config.Keys() {
		help := k.Help
		if k.Restart {
			help += " (a change needs a restart)"
		}
		fmt.Fprintf(&b, "| `%s` | `%s` | %s | %s | %s |\n", k.Name, k.Env, cell.Replace(k.Type), code(k.Default), cell.Replace(help))
	}
	fmt.Fprintf(&b, poolsHead, config.DefaultPool, config.DefaultDriver)
	for _, k := range config.PoolKeys() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", k.Name, cell.Replace(k.Type), cell.Replace(k.Default), cell.Replace(k.Help))
	}
	b.WriteString(repositoriesHead)
	for _, k := range config.RepositoryKeys() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", k.Name, k.Type, code(k.Default), cell.Replace(k.Help))
	}
	b.WriteString(schedulesHead)
	for _, k := range config.ScheduleKeys() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", k.Name, cell.Replace(k.Type), code(k.Default), cell.Replace(k.Help))
	}
	b.WriteString(hooksHead)
	for _, k := range config.HookKeys() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", k.Name, k.Type, code(k.Default), cell.Replace(k.Help))
	}
	b.WriteString(verifiesHead)
	for _, k := range config.VerifyKeys() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", k.Name, k.Type, code(k.Default), cell.Replace(k.Help))
	}
	for _, d := range drivers {
		fmt.Fprintf(&b, "\n## Driver %s\n\n%s. [More about it](../../drivers/volume/%s/README.md).\n", d.Name(), upper(d.Doc()), d.Name())
		table(&b, "Keys of a pool", d.Keys())
		table(&b, "Options of a volume (`-o KEY=VALUE`)", d.Options())
		variables(&b, d.Variables())
	}
	return b.String()
}

func metrics(all []daemon.Metric) string {
	var b strings.Builder
	fmt.Fprintf(&b, metricsHead, generated)
	for _, m := range all {
		labels := "none"
		if len(m.Labels) > 0 {
			labels = code(strings.Join(m.Labels, "`, `"))
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m.Name, m.Type, labels, cell.Replace(m.Help))
	}
	return b.String()
}

func table(b *strings.Builder, head string, keys []catalog.Key) {
	if len(keys) == 0 {
		fmt.Fprintf(b, "\n%s: none.\n", head)
		return
	}
	fmt.Fprintf(b, "\n%s:\n\n%s", head, catalog.Markdown(keys))
}

// variables describes those that a driver reads besides those of its keys.
func variables(b *strings.Builder, all []catalog.Variable) {
	if len(all) == 0 {
		return
	}
	b.WriteString("\nVariables of the daemon that it reads besides:\n\n| Variable | What it is |\n|---|---|\n")
	for _, v := range all {
		fmt.Fprintf(b, "| `%s` | %s |\n", v.Name, cell.Replace(v.Help))
	}
}

func upper(s string) string { return strings.ToUpper(s[:1]) + s[1:] }
