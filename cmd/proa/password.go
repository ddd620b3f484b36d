package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/proa-kv/proa/access"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/config"
	"github.com/proa-kv/proa/internal/render"
)

// Passwords come from files, from the environment, or from somebody at the terminal, which
// does not show them. They are never arguments, which other users of the machine can see and
// histories keep, and no error names one.

// passwordFlags say where the password that a user gets comes from.
type passwordFlags struct {
	file     string
	generate bool
}

func (p *passwordFlags) add(set *pflag.FlagSet) {
	set.StringVar(&p.file, "new-password-file", "", "`file` with the password that the user gets; also "+config.EnvNewPassword)
	set.BoolVar(&p.generate, "generate", false, "make a random password and print it")
}

// password returns the one that a user gets. instead says what else may be done where there
// is none.
func (p *passwordFlags) password(ctx context.Context, a *app, user, instead string) (password string, err error) {
	environment := os.Getenv(config.EnvNewPassword)
	switch {
	case p.generate && p.file != "":
		return "", usagef("--generate and --new-password-file cannot be used together")
	case p.generate:
		return rand.Text(), nil
	case p.file != "":
		var open bool
		if password, open, err = readSecret("new password", p.file); err != nil {
			return "", notDonef("%w", err)
		}
		if open {
			a.noteOpen(p.file)
		}
	case environment != "":
		password = environment
	default:
		if err := a.canAskSecret(); err != nil {
			return "", usagef("the password is missing: %w; give --new-password-file FILE, %s, or --generate%s", err, config.EnvNewPassword, instead)
		}
		return a.newPassword(ctx, user)
	}
	return password, checkNewPassword(password)
}

// noteOpen warns of a file with a secret that others than its owner can read.
func (a *app) noteOpen(path string) {
	a.Note("warning: others than its owner can read %s; change that with chmod 600", path)
}

// checkNewPassword returns why something cannot be a password.
func checkNewPassword(password string) error {
	if err := access.CheckPassword(password); err != nil {
		return notDonef("%w", sentence(err))
	}
	return nil
}

// show shows what was done, and the password where it was made here.
func (p *passwordFlags) show(a *app, message string, passwords []string) error {
	if !p.generate || len(passwords) == 0 {
		return showDone(a, &command.Done{Message: message})
	}
	return a.ShowForms(struct {
		Message  string `json:"message"`
		Password string `json:"password"`
	}{message, passwords[0]}, passwords[0]+"\n", fmt.Sprintf("%s\npassword: %s\n", render.OneLine(message), passwords[0]))
}

// sentence is an error of package access without the name of its class.
func sentence(err error) error { return errors.New(access.Sentence(err)) }

// canAskSecret returns why nobody can be asked for a password, nil if somebody can.
func (a *app) canAskSecret() error {
	_, in := render.Terminal(a.in)
	_, shown := render.Terminal(a.Err)
	switch {
	case a.shell: // which reads the terminal itself
		return errors.New("it is asked for outside the shell only")
	case !in || !shown:
		return errors.New("it is asked for at a terminal only")
	}
	return nil
}

// newPassword asks for the password that a user gets, twice.
func (a *app) newPassword(ctx context.Context, user string) (string, error) {
	first, err := a.askSecret(ctx, "New password of "+render.Escape([]byte(user))+": ")
	if err == nil {
		err = checkNewPassword(first)
	}
	if err != nil {
		return "", err
	}
	again, err := a.askSecret(ctx, "The same again: ")
	if err == nil && again != first {
		err = notDonef("the two passwords differ; nothing was changed")
	}
	return first, err
}

// askSecret returns the line that somebody types at the terminal, which does not show it.
// canAskSecret must be nil.
func (a *app) askSecret(ctx context.Context, prompt string) (string, error) {
	in := a.in.(*os.File)
	// Raw before the prompt is shown: what is typed at once is not shown either.
	before, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return "", fmt.Errorf("cannot ask for a password: %w", err)
	}
	defer func() { _ = term.Restore(int(in.Fd()), before) }()
	if a.typist == nil { // one for all prompts: it may have read ahead
		a.typist = term.NewTerminal(struct {
			io.Reader
			io.Writer
		}{in, a.Err}, "")
	}
	line, err := within(ctx, func() (string, error) { return a.typist.ReadPassword(prompt) })
	if err != nil { // Control-C or Control-D
		fmt.Fprint(a.Err, "\r\n")
		return "", cmp.Or(ctx.Err(), notDonef("no password was typed; nothing was changed"))
	}
	return line, nil
}

// ownPassword returns the password that logs in.
func (a *app) ownPassword(ctx context.Context) (string, error) {
	t, err := a.target()
	if err != nil {
		return "", err
	}
	s, err := a.security(ctx, t)
	if err != nil {
		return "", err
	}
	return s.secret()
}

func userPasswdCommand(a *app) *cobra.Command {
	var p passwordFlags
	var keepOld, dropOld bool
	cmd := newCommand("user passwd", cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) error {
		switch {
		case keepOld && dropOld:
			return usagef("--keep-old and --drop-old cannot be used together")
		case dropOld && (p.generate || p.file != ""):
			return usagef("--drop-old sets no new password")
		}
		id, err := a.identity(cmd.Context())
		if err != nil {
			return err
		}
		c := passwordChange{keepOld: keepOld, dropOld: dropOld}
		if len(args) == 1 {
			c.user = args[0]
		}
		info := id.User
		own := id.Login == access.ByPassword && info != nil && (c.user == "" || c.user == info.Name)
		switch {
		case own:
			c.user = info.Name
		case c.user == "":
			return &statusError{exitFailed, errors.New("you have not logged in by a password, so there is none of yours to change; name a user: proa user passwd NAME")}
		default: // known before anybody types a password
			l, err := a.userList(cmd.Context())
			if err != nil {
				return err
			}
			if info, err = findUser(l, c.user); err != nil {
				return err
			}
		}
		if dropOld && info.Passwords < access.PasswordsMax {
			return showDone(a, &command.Done{Message: fmt.Sprintf("user %s has no older password", c.user)})
		}
		if own {
			if c.current, err = a.ownPassword(cmd.Context()); err != nil {
				return err
			}
		}
		if !dropOld {
			if c.password, err = p.password(cmd.Context(), a, c.user, ""); err != nil {
				return err
			}
		}
		if err := c.carryOut(cmd.Context(), a, own); err != nil {
			return err
		}
		if s := a.link.security; own && s.passwordFile != "" && !dropOld {
			a.Note("%s holds the password of before", s.passwordFile)
		}
		return p.show(a, c.done(), []string{c.password})
	})
	p.add(cmd.Flags())
	cmd.Flags().BoolVar(&keepOld, "keep-old", false, "the password of before stays valid until --drop-old")
	cmd.Flags().BoolVar(&dropOld, "drop-old", false, "of two passwords only the newest stays valid")
	return cmd
}

// passwordChange is a change of a user's password.
type passwordChange struct {
	user, current, password string
	keepOld, dropOld        bool
}

// carryOut has the cluster do it, for the user itself or for an administrator.
func (c *passwordChange) carryOut(ctx context.Context, a *app, own bool) error {
	var done command.Done
	if own {
		return a.administer(ctx, command.AdminUserPassword, &command.PasswordArgs{
			Name: c.user, Current: c.current, Password: c.password, KeepOld: c.keepOld, DropOld: c.dropOld,
		}, &done)
	}
	e := command.UserArgs{UserEdit: access.UserEdit{Name: c.user, Mode: access.Only, Newest: !c.keepOld}}
	if !c.dropOld {
		e.Passwords = []string{c.password}
	}
	_, err := a.setUser(ctx, &e)
	return err
}

// done says what has become of the passwords.
func (c *passwordChange) done() string {
	switch {
	case c.keepOld:
		return fmt.Sprintf("user %s has a new password; the one before stays valid until: proa user passwd %[1]s --drop-old", c.user)
	case c.dropOld:
		return fmt.Sprintf("user %s has one password, the newest; connections that have logged in by the older one are closed", c.user)
	}
	return fmt.Sprintf("user %s has a new password; connections that have logged in by the one before are closed", c.user)
}
