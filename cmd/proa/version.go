package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"

	"github.com/spf13/cobra"
)

func versionCommand(a *app) *cobra.Command {
	return newCommand("version", cobra.NoArgs, func(*cobra.Command, []string) error {
		b := readBuild()
		return a.Show(b, "proa %s\n", b.line())
	})
}

// build is what this program was built from.
type build struct {
	Version  string `json:"version"`            // of the module; "devel" where it is not known
	Revision string `json:"revision,omitempty"` // of the working copy
	Time     string `json:"time,omitempty"`     // of the revision
	Modified bool   `json:"modified"`           // the working copy had changes
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// readBuild reads what the Go tool has noted in the program.
var readBuild = sync.OnceValue(func() build {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	return buildOf(info)
})

func buildOf(info *debug.BuildInfo) build {
	b := build{Version: "devel", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value[:min(len(s.Value), 12)]
		case "vcs.time":
			b.Time = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		b.Version = v
	}
	return b
}

// line is all that is known, for people.
func (b build) line() string {
	revision := ""
	if b.Revision != "" {
		revision = ", revision " + b.Revision
		if b.Modified {
			revision += " with changes"
		}
	}
	return fmt.Sprintf("%s%s, %s, %s", b.Version, revision, b.Go, b.Platform)
}

// versionText is the version in a word, as nodes send it to each other: that of the
// module or, for a build from a working copy without one, the revision.
func versionText() string { return readBuild().text() }

func (b build) text() string {
	if b.Version != "devel" || b.Revision == "" {
		return b.Version
	}
	changes := ""
	if b.Modified {
		changes = "+changes"
	}
	return "devel-" + b.Revision + changes
}
