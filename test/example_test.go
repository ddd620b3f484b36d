package test

import (
	"bytes"
	"os"
	"os/exec"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/proa-kv/proa/internal/testcluster"
)

// TestPythonClient runs the client that was written from docs/protocol.md alone
// against one node and against three. CI installs python3; elsewhere the test
// is skipped without it.
func TestPythonClient(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("CI needs python3")
		}
		t.Skip("there is no python3")
	}
	check := func(t *testing.T, endpoints ...string) {
		t.Helper()
		c := exec.CommandContext(t.Context(), python, append([]string{"-B", "../docs/examples/proa_check.py"}, endpoints...)...)
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	t.Run("one node", func(t *testing.T) {
		address := testcluster.Start(t, testcluster.Config{}).Address()
		check(t, address)
		runExample(t, "hello\n1\nnot found\n", python, "-B", "../docs/examples/native_client.py", address)
		runExample(t, "hello\n2\nnot found\n", "go", "run", "../docs/examples/goclient", address)
	})
	t.Run("three nodes", func(t *testing.T) {
		c := testcluster.StartCluster(t, testcluster.ClusterConfig{Nodes: 3, Shards: 4})
		c.AwaitLeaders()
		check(t, c.Endpoints()...)
	})
}

// runExample runs a program of docs/clients.md, which must print want.
func runExample(t *testing.T, want, program string, args ...string) {
	t.Helper()
	c := exec.CommandContext(t.Context(), program, args...)
	var problems bytes.Buffer
	c.Stderr = &problems
	if out, err := c.Output(); err != nil || string(out) != want {
		t.Errorf("%v printed %q, want %q: %v\n%s", c.Args, out, want, err, problems.Bytes())
	}
}

// TestClientsPage: docs/clients.md shows the programs that the tests run.
func TestClientsPage(t *testing.T) {
	const dir = "../docs/"
	page, err := os.ReadFile(dir + "clients.md")
	if err != nil {
		t.Fatal(err)
	}
	shown := regexp.MustCompile("(?s)\\]\\((examples/[^)]*)\\):\n\n```[a-z]+\n(.*?)```\n").FindAllSubmatch(page, -1)
	if len(shown) != 5 {
		t.Fatalf("the page shows %d programs", len(shown))
	}
	for _, m := range shown {
		file, err := os.ReadFile(dir + string(m[1]))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(file), string(m[2])); diff != "" {
			t.Errorf("%s is not what the page shows (-file +page):\n%s", m[1], diff)
		}
		if lines := bytes.Count(file, []byte("\n")); lines > 32 {
			t.Errorf("%s has %d lines; keep it short", m[1], lines)
		}
	}
}
