package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/internal/render"
)

func txnCommand(a *app) *cobra.Command {
	var conditions, then, otherwise []string
	cmd := newCommand("txn", cobra.NoArgs, func(cmd *cobra.Command, _ []string) error {
		txn, err := buildTxn(conditions, then, otherwise)
		if err != nil {
			return err
		}
		return a.call(cmd.Context(), func(ctx context.Context, c *client.Client) error {
			r, err := c.Txn(ctx, txn)
			if err != nil {
				return err
			}
			return showTxn(a, r)
		})
	})
	f := cmd.Flags()
	f.StringArrayVar(&conditions, "if", nil, "`condition` that must hold; repeatable")
	f.StringArrayVar(&then, "then", nil, "`operation` to run if all conditions hold; repeatable")
	f.StringArrayVar(&otherwise, "else", nil, "`operation` to run if a condition does not hold; repeatable")
	return cmd
}

func buildTxn(conditions, then, otherwise []string) (*client.Txn, error) {
	if len(conditions)+len(then)+len(otherwise) == 0 {
		return nil, usagef("the transaction is empty")
	}
	txn := client.NewTxn()
	for _, line := range conditions {
		c, err := parseCondition(line)
		if err != nil {
			return nil, usagef("--if %q: %w", line, err)
		}
		txn.If(c)
	}
	for _, branch := range []struct {
		flag  string
		lines []string
		add   func(...client.Operation) *client.Txn
	}{{"--then", then, txn.Then}, {"--else", otherwise, txn.Else}} {
		for _, line := range branch.lines {
			op, ok, err := parseOperation(line, true)
			if err != nil {
				return nil, usagef("%s %q: %w", branch.flag, line, err)
			}
			if ok {
				branch.add(op)
			}
		}
	}
	return txn, nil
}

var relations = map[string]client.Relation{
	"=": client.Equal, "==": client.Equal, "!=": client.NotEqual, "<": client.Less, ">": client.Greater,
}

func parseCondition(line string) (c client.Condition, err error) {
	words, err := render.SplitLine(line)
	if err != nil {
		return c, err
	}
	switch {
	case len(words) == 2 && words[0] == "exists":
		return client.Present([]byte(words[1])), nil
	case len(words) == 2 && words[0] == "absent":
		return client.Absent([]byte(words[1])), nil
	case len(words) != 4 || words[0] != "version" && words[0] != "value":
		return c, errors.New("write: exists KEY, absent KEY, version KEY = N, or value KEY = VALUE")
	}
	relation, ok := relations[words[2]]
	if !ok {
		return c, fmt.Errorf("unknown relation %q: choose =, !=, < or >", words[2])
	}
	if words[0] == "value" {
		return client.Value([]byte(words[1]), relation, []byte(words[3])), nil
	}
	n, err := strconv.ParseUint(words[3], 10, 64)
	if err != nil {
		return c, fmt.Errorf("version %q is not a whole number", words[3])
	}
	return client.Version([]byte(words[1]), relation, n), nil
}

func showTxn(a *app, r client.TxnResult) error {
	var err error
	if a.JSON() {
		rows := make([]resultRow, len(r.Results))
		for i := range r.Results {
			rows[i] = resultRowOf(&r.Results[i])
		}
		err = a.WriteJSON(struct {
			Succeeded bool        `json:"succeeded"`
			Results   []resultRow `json:"results"`
		}{r.Succeeded, rows})
	} else {
		branch := "conditions held; ran --then"
		if !r.Succeeded {
			branch = "a condition did not hold; ran --else"
		}
		if a.Form == render.AsTable {
			if err := a.Printf("%s\n", branch); err != nil {
				return err
			}
		}
		err = showResults(a, r.Results)
	}
	if err != nil && !isType[*statusError](err) {
		return err
	}
	if !r.Succeeded {
		return &statusError{exitFailed, errSilent}
	}
	return err
}
