package main

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"unicode"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/config"
	"github.com/proa-kv/proa/internal/contexts"
	"github.com/proa-kv/proa/internal/render"
	"github.com/proa-kv/proa/internal/wrongport"
)

// target is the cluster that commands talk to.
type target struct {
	source    targetSource
	endpoints []string
	context   string             // name of its context; "": it has none
	cluster   contexts.ClusterID // the only one to talk to; 0: whichever answers
	security  contexts.Security  // of its context
	known     []string           // names of all contexts, where source is byDefault
}

// targetSource is what named the endpoints, the strongest first.
type targetSource uint8

const (
	byFlag        targetSource = iota // --endpoints
	byEnvironment                     // PROA_ENDPOINTS
	byContext                         // --context, PROA_CONTEXT, or the current context
	byDefault                         // nothing
)

// target returns the cluster that the flags, the environment or the contexts name. The file of contexts is read only
// where it counts, so that a damaged one stops no command that names endpoints.
func (a *app) target() (*target, error) {
	if a.link.target == nil {
		t, err := findTarget(a)
		if err != nil {
			return nil, err
		}
		a.link.target = t
	}
	return a.link.target, nil
}

func findTarget(a *app) (*target, error) {
	name := a.context
	if name == "" {
		if a.endpoints != nil {
			return &target{source: byFlag, endpoints: a.endpoints}, nil
		}
		if e := os.Getenv(config.EnvEndpoints); e != "" {
			endpoints := strings.Split(e, ",")
			return &target{source: byEnvironment, endpoints: endpoints}, checkEndpoints(config.EnvEndpoints, endpoints)
		}
		name = os.Getenv(config.EnvContext)
	}
	set, err := loadContexts()
	if err != nil {
		return nil, err
	}
	if name = cmp.Or(name, set.Current); name == "" {
		return &target{source: byDefault, endpoints: []string{defaultEndpoint}, known: set.Names()}, nil
	}
	c, ok := set.Contexts[name]
	if !ok {
		return nil, notDonef("%w", noContext(name, set))
	}
	return &target{source: byContext, endpoints: c.Endpoints, context: name, cluster: c.Cluster, security: c.Security}, nil
}

func checkEndpoints(where string, endpoints []string) error {
	for _, e := range endpoints {
		if strings.TrimSpace(e) == "" {
			return usagef("%s: an endpoint is empty", where)
		}
		if strings.ContainsFunc(e, func(r rune) bool { return !unicode.IsPrint(r) }) {
			return usagef("%s: the endpoint %+q has characters that cannot be printed", where, e)
		}
		if _, port, err := net.SplitHostPort(e); err == nil && port != "" && !strings.HasPrefix(e, "unix:") {
			if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
				return usagef("%s %s: the port must be a number from 1 to 65535", where, e)
			}
		}
	}
	if endpoints != nil && len(endpoints) == 0 {
		return usagef("%s: names no endpoint", where)
	}
	return nil
}

// loadContexts reads the user's contexts. Where a user has no place for a
// configuration there are none.
func loadContexts() (*contexts.Set, error) {
	path, err := contexts.Path()
	if err != nil {
		return &contexts.Set{}, nil
	}
	set, err := contexts.Load(path)
	if err != nil {
		return nil, notDonef("%w", err)
	}
	return set, nil
}

func noContext(name string, set *contexts.Set) error {
	if len(set.Contexts) == 0 {
		return fmt.Errorf("there is no context %q: no context has been added; add it with: proa context add %s HOST:PORT", name, render.ShellQuote(name))
	}
	return fmt.Errorf("there is no context %q; there are: %s", name, strings.Join(set.Names(), ", "))
}

// learnCluster remembers the cluster of a context at the first contact, and reports
// whether this was the first one.
func learnCluster(a *app, c *client.Client, t *target) bool {
	info, ok := c.Server()
	if t.context == "" || t.cluster != 0 || !ok || info.Cluster == 0 {
		return false
	}
	t.cluster = contexts.ClusterID(info.Cluster)
	err := updateContexts(func(s *contexts.Set) error {
		if now, ok := s.Contexts[t.context]; ok && now.Cluster == 0 {
			now.Cluster = t.cluster
			s.Contexts[t.context] = now
		}
		return nil
	})
	if err != nil {
		a.Note("the cluster of context %s cannot be remembered: %v", t.context, err)
	}
	return true
}

// adviceUnreachable returns how to go on where no server of t could be reached, by
// connections as s has them. It advises to start a new server only where nothing suggests that there is a
// cluster: an empty one in the place of that cluster would look healthy.
func adviceUnreachable(e *client.UnavailableError, t *target, s *security) string {
	var wrong *client.WrongClusterError
	var secure *client.TLSError
	switch {
	case errors.As(e, &wrong):
		return adviceWrongCluster(wrong, t)
	case errors.Is(e, client.ErrUnauthenticated):
		return adviceLogin(s, t)
	case errors.As(e, &secure):
		return adviceTLS(secure, s, t)
	case errors.Is(e, client.ErrHandshake):
		return adviceClientPort(e, t)
	case isAny(e, client.ErrBusy, client.ErrTooManyConnections, client.ErrShuttingDown):
		return "Try again in a moment."
	case errors.Is(e, client.ErrProtocol):
		return "What answers breaks Proa's protocol. Check that the address is that of a Proa server, and compare its version with that of this program: proa version"
	case t.source == byDefault && len(t.known) > 0:
		return fmt.Sprintf("No cluster was named. Choose one of %s: proa --context NAME …, or proa context use NAME", strings.Join(t.known, ", "))
	case t.source == byDefault && allRefused(e):
		return "To start a new, empty server here: proa serve\n" +
			"If a server ran here before, start it again with the options and the data directory that it had.\n" +
			"To use another server: proa -e host:port …   (or set " + config.EnvEndpoints + ", or see proa context --help)"
	case t.source == byDefault:
		return "To use another server: proa -e host:port …   (or set " + config.EnvEndpoints + ", or see proa context --help)"
	}
	next := "Check the address and the network."
	if allRefused(e) {
		next = "Start the servers of the cluster again, on their data directories, or check the address."
		if len(t.endpoints) == 1 {
			next = "Start this server of the cluster again, on its data directory, or check the address."
		}
	}
	// A client that has been connected tries servers whose addresses it has learned.
	if len(t.endpoints) == 1 && len(e.Endpoints) == 1 {
		next += "\n" + adviceMoreEndpoints(t)
	}
	return next
}

// adviceClientPort returns how to name a client port instead of another one. The
// other ports of a server know the address of it.
func adviceClientPort(e *client.UnavailableError, t *target) string {
	const what = "Name the client port of a Proa server: "
	for _, f := range e.Endpoints {
		if !errors.Is(f.Err, client.ErrHandshake) {
			continue
		}
		address, ok := wrongport.ClientAddress(f.Err.Error())
		if !ok {
			continue
		}
		if port, all := strings.CutPrefix(address, ":"); all {
			host, _, err := net.SplitHostPort(f.Endpoint)
			if err != nil {
				continue
			}
			address = net.JoinHostPort(host, port)
		}
		return what + t.commandNaming(address)
	}
	return what + t.commandNaming("host:7400")
}

// commandNaming returns the command that makes the endpoints be these, in the way
// in which those of t were named.
func (t *target) commandNaming(endpoints ...string) string {
	words := shellQuoted(endpoints)
	switch t.source {
	case byContext:
		return fmt.Sprintf("proa context add %s %s --replace", t.context, strings.Join(words, " "))
	case byEnvironment:
		return fmt.Sprintf("export %s=%s", config.EnvEndpoints, strings.Join(words, ","))
	default:
		return fmt.Sprintf("proa -e %s …", strings.Join(words, ","))
	}
}

// commandAdding returns the command that adds options of how to log in, in the way in
// which the endpoints of t were named: pairs of an option and its value.
func (t *target) commandAdding(options ...string) string {
	flags, variables := "", ""
	for i := 0; i < len(options); i += 2 {
		flags += fmt.Sprintf(" --%s %s", options[i], options[i+1])
		variables += fmt.Sprintf(" %s=%s", securityEnv[options[i]], options[i+1])
	}
	switch t.source {
	case byContext:
		return fmt.Sprintf("proa context add %s %s --replace%s", t.context, strings.Join(shellQuoted(t.endpoints), " "), flags)
	case byEnvironment:
		return "export" + variables
	}
	return "proa" + flags + " …"
}

// adviceMoreEndpoints returns how to name further servers of a cluster.
func adviceMoreEndpoints(t *target) string {
	first, port := t.endpoints[0], client.DefaultPort
	if _, p, err := net.SplitHostPort(first); err == nil && p != "" {
		port = p
	}
	return "If the cluster has other servers, name them too: " + t.commandNaming(first, "OTHER:"+port)
}

func adviceWrongCluster(e *client.WrongClusterError, t *target) string {
	return fmt.Sprintf("Nothing was sent to it. Context %s is of cluster %016x. If that cluster was replaced on purpose:\n"+
		"  %s\n"+
		"Otherwise correct the endpoints, which proa context show %[1]s lists.", t.context, e.Want, t.commandNaming(t.endpoints...))
}

// allRefused reports whether there is nothing at any of the addresses.
func allRefused(e *client.UnavailableError) bool {
	for _, p := range e.Endpoints {
		if p.Err == nil || !isAny(p.Err, errRefused, syscall.ENOENT) {
			return false
		}
	}
	return true
}
