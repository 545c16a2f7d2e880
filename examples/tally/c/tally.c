// Tally keeps count, sum, minimum and maximum of readings by name. The same
// module is beside it in Go, AssemblyScript and Rust.
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define EXPORT(name) __attribute__((export_name(#name)))
#define FILE_NAME "/state/tally"
#define ENTRY_LINE "%s %" PRId64 " %" PRId64 " %" PRId32 " %" PRId32 "\n"
#define ENTRY_FIELDS "%32s %" SCNd64 " %" SCNd64 " %" SCNd32 " %" SCNd32

enum { NAME_SIZE = 32 };

// What is kept of the readings of a name.
struct entry {
	char name[NAME_SIZE + 1];
	int64_t count, sum;
	int32_t min, max;
};

struct tally {
	struct entry *entries; // sorted by name
	size_t len, cap;
};

// The module's state: it lives as long as its instance, and moves with it.
static struct timespec started;
static struct tally tally;

// Constructors run once, in _initialize.
__attribute__((constructor)) static void start(void) {
	clock_gettime(CLOCK_MONOTONIC, &started);
}

// grow makes room for n elements of a size and one more. A guest without memory
// traps: its instance is started afresh.
static void *grow(void *old, size_t n, size_t size, size_t *cap) {
	if (n < *cap)
		return old;
	*cap = 2 * n + 16;
	void *larger = realloc(old, *cap * size);
	if (!larger)
		abort();
	return larger;
}

// find returns the entry of a name, an empty one if it is new.
static struct entry *find(struct tally *t, const char *name) {
	size_t low = 0, high = t->len;
	while (low < high) {
		size_t middle = (low + high) / 2;
		int order = strcmp(name, t->entries[middle].name);
		if (order == 0)
			return &t->entries[middle];
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	t->entries = grow(t->entries, t->len, sizeof *t->entries, &t->cap);
	struct entry *e = &t->entries[low];
	memmove(e + 1, e, (t->len++ - low) * sizeof *e);
	*e = (struct entry){.count = 0};
	strcpy(e->name, name);
	return e;
}

static void count_in(const char *name, int32_t value) {
	struct entry *e = find(&tally, name);
	e->min = e->count == 0 || value < e->min ? value : e->min;
	e->max = e->count == 0 || value > e->max ? value : e->max;
	e->sum += value;
	e->count++;
}

// parse reads a line of a name, printable ASCII without spaces, and a number.
static bool parse(const char *line, const char *end, char *name, int32_t *value) {
	size_t n = 0;
	while (n < NAME_SIZE && line[n] > ' ' && line[n] <= '~')
		n++;
	const char *number = line + n + 1;
	if (n == 0 || line[n] != ' ' || isspace((unsigned char)*number))
		return false;
	memcpy(name, line, n);
	name[n] = 0;
	char *rest;
	long long parsed = strtoll(number, &rest, 10);
	*value = (int32_t)parsed;
	return rest != number && rest == end && parsed == *value;
}

// take parses the lines of a text, and counts them in if they are for good. It
// returns the number of the first wrong line, or 0.
static int take(const char *text, const char *end, bool for_good) {
	for (int line = 1; text < end; line++) {
		const char *newline = memchr(text, '\n', end - text);
		const char *line_end = newline ? newline : end;
		char name[NAME_SIZE + 1];
		int32_t value;
		if (!parse(text, line_end, name, &value))
			return line;
		if (for_good)
			count_in(name, value);
		text = line_end + 1;
	}
	return 0;
}

// read_request returns the request and a zero after it.
static char *read_request(size_t *len) {
	clearerr(stdin); // the end of the last call's request
	char *text = NULL;
	size_t cap = 0;
	*len = 0;
	for (;;) {
		text = grow(text, *len + 1, 1, &cap);
		size_t n = fread(text + *len, 1, cap - *len - 1, stdin);
		if (n == 0)
			break;
		*len += n;
	}
	text[*len] = 0;
	return text;
}

static void total(int64_t *count, int64_t *sum) {
	*count = *sum = 0;
	for (size_t i = 0; i < tally.len; i++) {
		*count += tally.entries[i].count;
		*sum += tally.entries[i].sum;
	}
}

static void print(FILE *to) {
	for (size_t i = 0; i < tally.len; i++) {
		struct entry *e = &tally.entries[i];
		fprintf(to, ENTRY_LINE, e->name, e->count, e->sum, e->min, e->max);
	}
}

static int failed(const char *what) {
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	return 1;
}

// add takes lines of a name and a whole number, and answers with the number of
// readings so far. If a line is wrong, none is taken.
EXPORT(add) int add(void) {
	size_t len;
	char *request = read_request(&len);
	int wrong = take(request, request + len, false);
	if (wrong == 0)
		take(request, request + len, true);
	free(request);
	if (wrong != 0) {
		fprintf(stderr, "line %d is not a name and a number\n", wrong);
		return 1;
	}
	int64_t count, sum;
	total(&count, &sum);
	printf("%" PRId64 "\n", count);
	return fflush(stdout);
}

// report answers with a line for each name: count, sum, minimum and maximum.
EXPORT(report) int report(void) {
	print(stdout);
	return fflush(stdout);
}

// mean is NaN if there is no reading.
EXPORT(mean) double mean(void) {
	int64_t count, sum;
	total(&count, &sum);
	return (double)sum / (double)count;
}

// above is the number of names with a reading above limit.
EXPORT(above) int64_t above(int32_t limit) {
	int64_t names = 0;
	for (size_t i = 0; i < tally.len; i++)
		names += tally.entries[i].max > limit;
	return names;
}

// uptime is in milliseconds, and never goes back.
EXPORT(uptime) int64_t uptime(void) {
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	int64_t ns = (now.tv_sec - started.tv_sec) * INT64_C(1000000000) + now.tv_nsec - started.tv_nsec;
	return ns / 1000000;
}

// save writes the report to a file of the instance's own, whole or not at all.
EXPORT(save) int save(void) {
	FILE *f = fopen(FILE_NAME ".new", "w");
	if (f) {
		print(f);
		bool failed = ferror(f);
		if (fclose(f) == 0 && !failed && rename(FILE_NAME ".new", FILE_NAME) == 0)
			return 0;
	}
	return failed("cannot save");
}

// load goes back to what was saved last.
EXPORT(load) int load(void) {
	FILE *f = fopen(FILE_NAME, "r");
	if (!f)
		return failed("cannot load");
	struct tally loaded = {0};
	struct entry e;
	int fields;
	while ((fields = fscanf(f, ENTRY_FIELDS, e.name, &e.count, &e.sum, &e.min, &e.max)) == 5)
		*find(&loaded, e.name) = e;
	bool damaged = fields != EOF || ferror(f);
	fclose(f);
	if (!damaged) {
		struct tally old = tally;
		tally = loaded;
		loaded = old;
	}
	free(loaded.entries);
	if (damaged)
		fputs("cannot load: the file is damaged\n", stderr);
	return damaged;
}
