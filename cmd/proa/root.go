package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/proa-kv/proa/config"
	"github.com/proa-kv/proa/internal/render"
)

// outputForms annotates a command that has other forms of output than most.
const outputForms = "output"

// usualForms are the forms of output that most commands have.
var usualForms = []string{render.AsTable, render.AsJSON, render.AsJSONL, render.AsRaw}

// checkFlags checks the flags all commands share.
func checkFlags(a *app, cmd *cobra.Command) error {
	if _, ok := consistencies[a.consistency]; !ok {
		return usagef("--consistency %s: choose linearizable, session or stale", a.consistency)
	}
	forms := usualForms
	if own := cmd.Annotations[outputForms]; own != "" {
		forms = strings.Fields(own)
	}
	if last := len(forms) - 1; !slices.Contains(forms, a.Form) {
		if last == 0 {
			return usagef("--output %s: %s has one form of output", a.Form, cmd.CommandPath())
		}
		return usagef("--output %s: choose %s or %s", a.Form, strings.Join(forms[:last], ", "), forms[last])
	}
	if a.timeout <= 0 {
		return usagef("--timeout %v: must be above 0", a.timeout)
	}
	if a.endpoints != nil && a.context != "" {
		return usagef("--endpoints and --context cannot be used together")
	}
	return checkEndpoints("--endpoints", a.endpoints)
}

// newRoot builds the tree of commands around a.
func newRoot(a *app) *cobra.Command {
	texts := commandTexts()
	root := &cobra.Command{
		Use: "proa", Short: texts["proa"].short, Long: texts["proa"].long,
		SilenceErrors:      true,
		SilenceUsage:       true,
		DisableSuggestions: true, // unknownCommand has its own
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkFlags(a, cmd); err != nil {
				return err
			}
			a.formChosen = cmd.Flags().Changed("output")
			if !a.shell { // whose lines have none of these flags
				a.given = securityGiven(cmd)
			}
			a.started = true
			return nil
		},
	}
	if a.shell {
		root.Use, root.Long = "", "Commands of the shell. HELP COMMAND tells more about one."
		root.CompletionOptions.DisableDefaultCmd = true
	} else {
		root.Version = versionText()
		root.SetVersionTemplate("proa {{.Version}}\n")
	}
	addFlags(a, root)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return explainFlag(err, cmd.LocalFlags(), allFlags(cmd)) })
	root.SetHelpCommand(helpCommand(a, root))
	root.AddGroup(
		&cobra.Group{ID: groupKeys, Title: "Keys:"},
		&cobra.Group{ID: groupServer, Title: "Server:"},
		&cobra.Group{ID: groupCluster, Title: "Cluster:"},
	)
	if !a.shell {
		root.AddGroup(&cobra.Group{ID: groupData, Title: "Data:"})
	}
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add(groupKeys, getCommand(a), putCommand(a), incrCommand(a), expireCommand(a), persistCommand(a), existsCommand(a), mgetCommand(a))
	add(groupKeys, delCommand(a), scanCommand(a), batchCommand(a), txnCommand(a))
	add(groupServer, pingCommand(a), versionCommand(a))
	add(groupCluster, statusCommand(a), memberCommand(a), shardCommand(a), clusterCommand(a), userCommand(a), roleCommand(a))
	if a.shell {
		finish(a, root)
		return root
	}
	serve, demo, verify := serveCommand(a), demoCommand(a), verifyCommand(a)
	needServerSystem(serve, demo, verify)
	settings := configCommand(a)
	connectsNowhere(serve, demo, verify, settings)
	add(groupKeys, shellCommand(a))
	add(groupServer, serve, settings, benchCommand(a))
	add(groupCluster, topCommand(a), contextCommand(a), demo)
	add(groupData, exportCommand(a), importCommand(a), verify)
	finish(a, root)
	return root
}

// commandGroup returns a command that only has commands below it.
func commandGroup(name string, commands ...*cobra.Command) *cobra.Command {
	cmd := newCommand(name, cobra.NoArgs, func(cmd *cobra.Command, _ []string) error { return cmd.Help() })
	cmd.AddCommand(commands...)
	return cmd
}

// finish does for all commands what does not depend on which they are.
func finish(a *app, root *cobra.Command) {
	explainArgs(root)
	formatHelp(a, root)
}

func helpCommand(a *app, root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Show help on a command",
		RunE: func(_ *cobra.Command, args []string) error {
			c, rest, err := root.Find(args)
			if err == nil && len(rest) > 0 && c.HasSubCommands() {
				err = fmt.Errorf("unknown command %q for %q", rest[0], c.CommandPath())
			}
			if err != nil {
				a.called = root
				return &usageError{unknownCommand(a, root, err)}
			}
			c.InitDefaultHelpFlag()
			return c.Help()
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			c, _, err := root.Find(args)
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return commandNames(c), cobra.ShellCompDirectiveNoFileComp
		},
	}
}

const (
	groupKeys    = "keys"
	groupServer  = "server"
	groupCluster = "cluster"
	groupData    = "data"
)

func addFlags(a *app, root *cobra.Command) {
	if a.Form == "" {
		a.Form, a.consistency, a.timeout = render.AsTable, "linearizable", defaultTimeout
	}
	f := root.PersistentFlags()
	if !a.shell {
		f.StringSliceVarP(&a.endpoints, "endpoints", "e", a.endpoints, "`servers`: host:port or unix:///path; also "+config.EnvEndpoints+" (default "+defaultEndpoint+")")
		f.StringVar(&a.context, "context", a.context, "`name` of the cluster, see proa context; also "+config.EnvContext)
		_ = root.RegisterFlagCompletionFunc("context", completeContexts)
		addSecurityFlags(f)
		f.BoolVarP(&a.escaped, "escaped", "x", a.escaped, `keys and values contain escapes such as \n or \x00`)
	}
	f.StringVarP(&a.Form, "output", "o", a.Form, "output `form`: table, json, jsonl or raw")
	f.StringVar(&a.consistency, "consistency", a.consistency, "consistency `mode` of reads: linearizable, session or stale")
	f.DurationVar(&a.timeout, "timeout", a.timeout, "`time` to wait for an answer")
	completeFlag(root, "output", usualForms...)
	completeFlag(root, "consistency", "linearizable", "session", "stale")
}

// completeFlag has command shells complete the value of a flag.
func completeFlag(cmd *cobra.Command, flag string, values ...string) {
	// The error could only say that the flag does not exist.
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}
