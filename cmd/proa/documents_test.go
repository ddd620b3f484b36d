package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/proa-kv/proa/config"
	"github.com/proa-kv/proa/protocol"
)

// The documents for operators name commands, settings, messages, metrics and
// tests. Each of them must exist. What they say that these do is for the tests
// that run servers.

const repository = "../.."

func readDocument(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(repository, "docs", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// sources returns all files of the repository with the ending, one behind the
// other, but those that skip refuses.
func sources(t *testing.T, ending string, skip func(path string) bool) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(repository, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ending) || skip(path) {
			return err
		}
		b, err := os.ReadFile(path)
		all.Write(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

var (
	fenced   = regexp.MustCompile("(?s)```[a-z]*\n(.*?)```")
	inline   = regexp.MustCompile("`([^`]+)`")
	space    = regexp.MustCompile(`\s+`)
	key      = regexp.MustCompile("`([a-z]+\\.[a-z_]+)`(?: \\(([^)]*)\\))?")
	headline = regexp.MustCompile(`\*\*"([^"]+)"`)
	// blanks are what a message fills in: a number, a directory.
	blanks    = regexp.MustCompile(` (?:N|DIR) `)
	metric    = regexp.MustCompile("`(proa_[a-z_]+)`")
	testNamed = regexp.MustCompile("`(Test[A-Za-z]+)`")
)

// commandLines returns the command lines of a document, in blocks and in the
// text.
func commandLines(doc string) (lines []string) {
	for _, block := range fenced.FindAllStringSubmatch(doc, -1) {
		for line := range strings.Lines(block[1]) {
			line = strings.TrimPrefix(strings.TrimSpace(line), "$ ")
			line, _, _ = strings.Cut(line, " #")
			lines = append(lines, line)
		}
	}
	for _, code := range inline.FindAllStringSubmatch(fenced.ReplaceAllString(doc, ""), -1) {
		lines = append(lines, space.ReplaceAllString(code[1], " "))
	}
	return lines
}

func TestDocumentedCommands(t *testing.T) {
	pages, err := filepath.Glob(filepath.Join(repository, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range pages {
		name := filepath.Base(page)
		found := 0
		for _, line := range commandLines(readDocument(t, name)) {
			words := strings.Fields(line)
			if len(words) < 2 || words[0] != "proa" || strings.HasSuffix(words[1], ":") {
				continue
			}
			found++
			cmd, _, err := newRoot(&app{}).Find(words[1:])
			if err != nil {
				t.Errorf("%s: %s: %v", name, line, err)
				continue
			}
			if cmd.HasSubCommands() && len(words) > 2 && !strings.HasPrefix(words[2], "-") {
				t.Errorf("%s: %s: there is no such command of %s", name, line, cmd.CommandPath())
			}
			for _, w := range words {
				flag, isFlag := strings.CutPrefix(w, "--")
				flag, _, _ = strings.Cut(flag, "=")
				if isFlag && flag != "help" && cmd.Flag(flag) == nil && cmd.InheritedFlags().Lookup(flag) == nil {
					t.Errorf("%s: %s: there is no flag --%s", name, line, flag)
				}
			}
		}
		if name == "operations.md" && found < 20 {
			t.Errorf("%s: only %d commands found", name, found)
		}
	}
}

func TestDocumentedSettings(t *testing.T) {
	c, err := config.Load(config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]string{}
	for _, s := range c.Settings() {
		values[s.Name] = s.Value
	}
	sections := map[string]bool{}
	for name := range values {
		section, _, _ := strings.Cut(name, ".")
		sections[section] = true
	}
	for _, name := range []string{"operations.md", "reliability.md", "cli.md"} {
		for _, m := range key.FindAllStringSubmatch(space.ReplaceAllString(readDocument(t, name), " "), -1) {
			section, _, _ := strings.Cut(m[1], ".")
			value, ok := values[m[1]]
			switch {
			case !sections[section] || strings.HasSuffix(m[1], ".json") || strings.HasSuffix(m[1], ".md"):
			case !ok:
				t.Errorf("%s: there is no setting %s", name, m[1])
			case m[2] != "" && strings.ContainsAny(m[2][:1], "0123456789") && !strings.HasPrefix(strings.ReplaceAll(m[2], " ", "")+",", value+","):
				t.Errorf("%s: the default of %s is %s, not %s", name, m[1], value, m[2])
			}
		}
	}
}

func TestDocumentedMessages(t *testing.T) {
	code := sources(t, ".go", func(path string) bool { return strings.HasSuffix(path, "_test.go") })
	doc := space.ReplaceAllString(readDocument(t, "operations.md"), " ")
	headlines := headline.FindAllStringSubmatch(doc, -1)
	if len(headlines) < 5 {
		t.Errorf("only %d messages found", len(headlines))
	}
	for _, m := range headlines {
		for _, part := range blanks.Split(m[1], -1) {
			// Words that come from the operating system.
			if !strings.Contains(code, part) && part != "address already in use" {
				t.Errorf("operations.md: no program says %q", part)
			}
		}
	}
}

func TestDocumentedMetricsAndTests(t *testing.T) {
	code := sources(t, ".go", func(path string) bool { return strings.HasSuffix(path, "_test.go") })
	tests := sources(t, "_test.go", func(string) bool { return false })
	for _, name := range []string{"operations.md", "reliability.md", "cli.md", "peer-protocol.md"} {
		doc := readDocument(t, name)
		for _, m := range metric.FindAllStringSubmatch(doc, -1) {
			if !strings.Contains(code, `"`+m[1]+`"`) {
				t.Errorf("%s: there is no metric %s", name, m[1])
			}
		}
		for _, m := range testNamed.FindAllStringSubmatch(doc, -1) {
			if !strings.Contains(tests, "func "+m[1]) {
				t.Errorf("%s: there is no test %s", name, m[1])
			}
		}
	}
}

// TestErrorCodesAreDocumented: docs/cli.md names every code of an error that is not
// a status of the protocol.
func TestErrorCodesAreDocumented(t *testing.T) {
	page := readDocument(t, "cli.md")
	statuses := map[string]bool{}
	for s := range 256 {
		statuses[strings.ToLower(protocol.Status(s).String())] = true
	}
	for _, c := range codes {
		if !statuses[c.code] && !strings.Contains(page, "`"+c.code+"`") {
			t.Errorf("docs/cli.md does not name the code %s", c.code)
		}
	}
}
