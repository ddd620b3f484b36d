package test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	linkTarget  = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	linkHeading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	linkBlock   = regexp.MustCompile("(?s)```.*?```")
	linkDropped = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// TestLinks follows the links between the pages of the repository, with the
// headings that they name.
func TestLinks(t *testing.T) {
	t.Parallel()
	headings := map[string]map[string]bool{}
	var pages []string
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "node_modules" || d.Name() == ".git" || d.Name() == "testdata"):
			return filepath.SkipDir
		case !strings.HasSuffix(path, ".md"):
			return nil
		}
		text, err := os.ReadFile(path)
		pages = append(pages, path)
		headings[path] = map[string]bool{}
		for _, m := range linkHeading.FindAllStringSubmatch(linkBlock.ReplaceAllString(string(text), ""), -1) {
			headings[path][anchor(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	followed := 0
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range linkTarget.FindAllStringSubmatch(linkBlock.ReplaceAllString(string(text), ""), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			followed++
			name, heading, _ := strings.Cut(m[1], "#")
			target := page
			if name != "" {
				target = filepath.Join(filepath.Dir(page), name)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links to %s: %v", page, m[1], err)
			} else if heading != "" && headings[target] != nil && !headings[target][heading] {
				t.Errorf("%s links to %s, which has no such heading", page, m[1])
			}
		}
	}
	if followed < 50 {
		t.Errorf("only %d links found", followed)
	}
}

// anchor is a heading as links name it.
func anchor(heading string) string {
	return strings.ReplaceAll(linkDropped.ReplaceAllString(strings.ToLower(strings.TrimSpace(heading)), ""), " ", "-")
}
