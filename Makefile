# Each target is what CI runs, so that a pass here is a pass there.

GO        ?= go
# A static binary needs no C. Tests with the race detector do.
export CGO_ENABLED ?= 0
DATA      ?= ./proa-data
FUZZTIME  ?= 10s
COUNT     ?= 6
SEEDS     ?= 5000
SEED      ?= 1

STATICCHECK   = honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK   = golang.org/x/vuln/cmd/govulncheck@v1.1.4
TOOLS         = $(CURDIR)/bin

# The packages whose tests take longest: make test runs their short form.
LONGEST  = ./test ./internal/sim
# The others, the longest first, so that the processors have something to do until
# the end.
OTHERS   = ./server ./raftgroup ./storage $$($(GO) list ./... | grep -vE '/(test|internal/sim)$$')

# The packages that run with the race detector: the commands' scripts start a program each
# time, which takes minutes with it, and what they start runs in the others.
RACING   = ./server ./raftgroup ./storage $$($(GO) list ./... | grep -vE '/(test|internal/sim|cmd/proa)$$')

# The packages that pooled buffers pass through, and one that starts servers.
BUFFERED = ./server/... ./raftgroup/peer ./bufpool ./internal/testcluster

# The tests of pages and commands, for which neither the engines of the servers nor the
# race detector make a difference.
PAGES = Page|Links|Readme|Import|Operations|Python|RefusedStarts|ToolsOf

# The tests of promises that the engines keep, for one pass with those that are not the
# default. make test-engines has them all.
ENGINES = CrashLoop|LostLogTail|Linearizable|SurvivesKill|ClusterSnapshot|ClusterExtend|ClusterMember|Session|BadInput|Large

.DEFAULT_GOAL := help
.PHONY: help build run test test-all race sim lint fuzz bench ycsb compare gobench docs picture clean failover growth

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build ./proa
	$(GO) build -trimpath -o proa ./cmd/proa

run: build ## build, and serve on ./proa-data (DATA=dir for another place)
	@exec ./proa serve --data $(DATA)

test: ## the tests that a change should pass first: all but the longest, in about 5 minutes on two idle cores
	@echo 'All tests but the longest: about 5 minutes on two idle cores. The rest: make test-all.'
	@$(GO) test -short -timeout 15m $(LONGEST) & longest=$$!; \
	$(GO) test -timeout 15m $(OTHERS); others=$$?; \
	wait $$longest && exit $$others

test-all: ## what make test leaves out: the longest tests, all short ones with the race detector and buffer checks, other systems, Redis and its clients; about 20 minutes
	@echo 'What make test leaves out: about 20 minutes on two idle cores.'
	$(GO) test -timeout 15m $(LONGEST)
	@export CGO_ENABLED=1; $(GO) test -race -short -skip '$(PAGES)' -timeout 20m $(LONGEST) & longest=$$!; \
	$(GO) test -race -short -timeout 20m $(RACING); others=$$?; \
	wait $$longest && exit $$others
	$(GO) test -tags proadebug -short -timeout 10m $(BUFFERED)
	PROA_NETWORK_TRANSPORT=netpoll PROA_RAFT_ENGINE=dragonboat $(GO) test -short -run '$(ENGINES)' -timeout 10m ./test
	$(GO) test -C bench/peers -short ./...
	$(GO) test -C docs/picture ./...
	$(GO) test -C test/redis -count 1 -timeout 5m ./...
	@$(MAKE) --no-print-directory cross

# The client and the command line run on all of these, servers on Linux, and on
# macOS for development.
.PHONY: cross
cross: ## build for each supported platform
	GOOS=linux GOARCH=arm64 $(GO) build ./...
	GOOS=darwin GOARCH=arm64 $(GO) vet ./...
	GOOS=windows GOARCH=amd64 $(GO) vet ./client ./cmd/proa

# In the tests of these, servers are processes, which get the setting as well.
.PHONY: test-engines
test-engines: ## the tests that start servers, with the network transports and the Raft engine that are not the default (docs/engines.md); about 40 minutes
	@set -e; for settings in 'net etcd' 'netpoll etcd' 'epoll dragonboat' 'netpoll dragonboat'; do \
		set -- $$settings; export PROA_NETWORK_TRANSPORT=$$1 PROA_RAFT_ENGINE=$$2; \
		echo "network.transport: $$1, raft.engine: $$2"; \
		$(GO) test -timeout 20m ./test ./cmd/proa ./internal/demo ./bench/lab/...; \
		$(GO) test -C test/redis -count 1 -timeout 10m ./...; \
	done

race: ## all tests with the race detector
	CGO_ENABLED=1 $(GO) test -race -timeout 30m ./...

sim: ## SEEDS clusters in virtual time, with faults, from the number SEED on; see docs/simulator.md
	$(GO) test ./internal/sim -run 'TestSeeds$$' -seed $(SEED) -seeds $(SEEDS) -v -timeout 0

lint: ## formatting, vet, staticcheck, dependencies, import table, known vulnerabilities
	@unformatted=$$(gofmt -l .); test -z "$$unformatted" || { echo "not formatted by gofmt:"; echo "$$unformatted"; exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags proadebug ./...
	$(GO) run $(STATICCHECK) ./...
	$(GO) mod tidy -diff
	$(GO) vet -C bench/peers ./...
	$(GO) mod tidy -C bench/peers -diff
	$(GO) vet -C test/redis ./...
	$(GO) mod tidy -C test/redis -diff
	$(GO) vet -C docs/picture ./...
	$(GO) mod tidy -C docs/picture -diff
	$(GO) test ./internal/lint
	@$(MAKE) --no-print-directory vulnerabilities

# govulncheck exits with 3 where it found something. It needs the network; a
# machine without it is told so and passes.
.PHONY: vulnerabilities
vulnerabilities:
	@GOBIN=$(TOOLS) $(GO) install $(GOVULNCHECK) || { echo 'SKIPPED: govulncheck cannot be installed here'; exit 0; }; \
	$(TOOLS)/govulncheck ./... ; status=$$?; \
	case $$status in \
	0) ;; \
	3) exit 1 ;; \
	*) echo "SKIPPED: govulncheck could not finish (exit status $$status); is its database reachable?" ;; \
	esac

fuzz: ## each fuzz target for FUZZTIME
	@set -e; for package in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' $$package | grep '^Fuzz' || true); do \
			echo "$$package $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1s $$package; \
		done; \
	done

bench: build ## one node beside Redis, disk and loopback, in one run; rewrites docs/performance.md (BENCH=-quick to try it out)
	$(GO) run ./bench/lab onenode -proa ./proa $(if $(BENCH),$(BENCH),-write docs/performance.md)

ycsb: build ## YCSB A, B and C with 10 GiB of data and 1 GiB of cache beside Pebble in process; takes long; rewrites docs/performance.md (YCSB=-quick to try it out)
	$(GO) run ./bench/lab onenode -ycsb -proa ./proa $(if $(YCSB),$(YCSB),-write docs/performance.md)

compare: build ## Proa and its engines beside etcd and Redis, one node and three, in one run; rewrites docs/performance.md (COMPARE=-quick to try it out, COMPARE='-servers proa,proa-dragonboat' for these alone)
	cd bench/peers && $(GO) run . -proa ../../proa $(if $(COMPARE),$(COMPARE),-write ../../docs/performance.md)

failover: build ## what clients notice of killed, stopped and moved leaders, and of many shards; rewrites docs/performance.md (FAILOVER=-quick to try it out)
	$(GO) run ./bench/lab failover -proa ./proa $(if $(FAILOVER),$(FAILOVER),-write docs/performance.md)

growth: build ## curves over connections, shards, values, keys and nodes; rewrites docs/growth.md, .html and .json (GROWTH=-quick to try it out)
	$(GO) run ./bench/lab growth -proa ./proa $(if $(GROWTH),$(GROWTH),-write docs/growth.md -html docs/growth.html -json docs/growth.json)

gobench: ## Go benchmarks, COUNT times each; compare two runs with benchstat
	$(GO) test -run '^$$' -bench . -benchmem -count $(COUNT) -timeout 60m ./...

docs: build ## rewrite the pages that are made from code
	./proa config docs > docs/configuration.md.new
	mv docs/configuration.md.new docs/configuration.md

picture: build ## rewrite docs/demo.svg: the screen at the end of a demo
	$(GO) run -C docs/picture . -write ../demo.svg -in ../.. ./proa demo

clean: ## remove what was built; data directories stay
	rm -rf proa bin
