package redis

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var rewriteFlag = flag.Bool("rewrite", false, "write what redis-server answers into the transcripts")

// transcripts returns all of them.
func transcripts(t *testing.T) []*script {
	t.Helper()
	paths, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no transcripts in testdata: %v", err)
	}
	var all []*script
	for _, path := range paths {
		s, err := readScript(path)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	return all
}

// TestRedis checks that a real Redis answers what the transcripts say, or makes
// them say so.
func TestRedis(t *testing.T) {
	all := transcripts(t)
	r := startRedis(t)
	for _, s := range all {
		t.Run(topic(s), func(t *testing.T) {
			fresh := map[*group][]string{}
			for _, c := range s.cases {
				t.Run(c.name, func(t *testing.T) { record(t, c, r, fresh) })
			}
			if !*rewriteFlag || t.Failed() {
				return
			}
			if err := os.WriteFile(s.path, []byte(s.rewrite(fresh)), 0o644); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// record plays a case to Redis. What is to be rewritten goes into fresh.
func record(t *testing.T, c *scene, r *target, fresh map[*group][]string) {
	r.wipe(t)
	got, err := play(c, r)
	if err != nil {
		t.Errorf("%v", err)
	}
	if !*rewriteFlag {
		judge(t, c, r, got)
		return
	}
	for g, lines := range got {
		if ok, err := matches(g.wanted(r.name), lines); err != nil {
			t.Errorf("line %d: %v", g.line, err)
		} else if !ok {
			fresh[g] = lines
		}
	}
}

// TestProa checks that Proa answers what the transcripts say.
func TestProa(t *testing.T) {
	all := transcripts(t)
	p := startProa(t)
	for _, s := range all {
		t.Run(topic(s), func(t *testing.T) {
			for _, c := range s.cases {
				t.Run(c.name, func(t *testing.T) {
					p.wipe(t)
					got, err := play(c, p)
					if err != nil {
						t.Errorf("%v", err)
					}
					judge(t, c, p, got)
				})
			}
		})
	}
}

// topic returns the name of a transcript.
func topic(s *script) string { return strings.TrimSuffix(filepath.Base(s.path), ".txt") }

// differencesPage is where users read what is otherwise.
const differencesPage = "../../docs/redis.md"

// TestDifferencesAreDocumented checks that users can read of every difference
// that the transcripts allow.
func TestDifferencesAreDocumented(t *testing.T) {
	b, err := os.ReadFile(differencesPage)
	if err != nil {
		t.Fatal(err)
	}
	page := plainWords(string(b))
	for _, s := range transcripts(t) {
		for _, c := range s.cases {
			for _, g := range c.groups {
				if !strings.Contains(page, plainWords(g.differs)) {
					t.Errorf("%s:%d: %s does not say: %s", s.path, g.line, differencesPage, g.differs)
				}
			}
		}
	}
}

// plainWords leaves out what only typesets, and the case of letters.
func plainWords(s string) string {
	s = strings.NewReplacer("`", "", "*", "", "|", " ").Replace(strings.ToLower(s))
	return strings.Join(strings.Fields(s), " ")
}
