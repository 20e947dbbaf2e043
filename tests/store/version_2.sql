CREATE TABLE memories (
    memory_id TEXT NOT NULL,
    project TEXT NOT NULL,
    kind TEXT NOT NULL,
    text TEXT NOT NULL,
    created_at DOUBLE PRECISION,
    metadata JSON NOT NULL,
    PRIMARY KEY (memory_id)
);
CREATE INDEX ix_memories_project_created_at ON memories (project, created_at);
CREATE TABLE meta (
    schema_version INTEGER NOT NULL
);
CREATE TABLE requests (
    request_id TEXT NOT NULL,
    model TEXT NOT NULL,
    provider TEXT NOT NULL,
    host TEXT NOT NULL,
    started_at DOUBLE PRECISION,
    status TEXT NOT NULL,
    latency_s DOUBLE PRECISION,
    task_type TEXT NOT NULL,
    run_id TEXT,
    sample_id TEXT,
    agent TEXT,
    error_type TEXT,
    error TEXT,
    finish_reason TEXT,
    input_tokens BIGINT,
    output_tokens BIGINT,
    cached_tokens BIGINT,
    tokens_estimated BOOLEAN NOT NULL,
    queue_s DOUBLE PRECISION,
    ttft_s DOUBLE PRECISION,
    load_s DOUBLE PRECISION,
    output_tokens_per_s DOUBLE PRECISION,
    inter_chunk_p50_s DOUBLE PRECISION,
    inter_chunk_p95_s DOUBLE PRECISION,
    inter_chunk_max_s DOUBLE PRECISION,
    chunks BIGINT NOT NULL,
    attempts BIGINT NOT NULL,
    server_prompt_s DOUBLE PRECISION,
    server_output_s DOUBLE PRECISION,
    server_tokens_per_s DOUBLE PRECISION,
    context_truncated BOOLEAN NOT NULL,
    PRIMARY KEY (request_id)
);
CREATE INDEX ix_requests_run_id ON requests (run_id);
CREATE INDEX ix_requests_started_at ON requests (started_at);
CREATE TABLE runs (
    run_id TEXT NOT NULL,
    suite TEXT NOT NULL,
    suite_hash TEXT NOT NULL,
    model TEXT NOT NULL,
    status TEXT NOT NULL,
    started_at DOUBLE PRECISION,
    planned_samples BIGINT NOT NULL,
    epochs BIGINT NOT NULL,
    concurrency BIGINT NOT NULL,
    finished_at DOUBLE PRECISION,
    config JSON NOT NULL,
    pid BIGINT,
    process_started_at DOUBLE PRECISION,
    hostname TEXT,
    version TEXT,
    error TEXT,
    PRIMARY KEY (run_id)
);
CREATE TABLE samples (
    sample_id TEXT NOT NULL,
    run_id TEXT NOT NULL,
    task TEXT NOT NULL,
    epoch BIGINT NOT NULL,
    status TEXT NOT NULL,
    score DOUBLE PRECISION,
    input TEXT NOT NULL,
    target TEXT NOT NULL,
    output TEXT NOT NULL,
    scorer TEXT NOT NULL,
    started_at DOUBLE PRECISION,
    finished_at DOUBLE PRECISION,
    explanation TEXT NOT NULL,
    error_type TEXT,
    error TEXT,
    latency_s DOUBLE PRECISION,
    ttft_s DOUBLE PRECISION,
    queue_s DOUBLE PRECISION,
    load_s DOUBLE PRECISION,
    output_tokens_per_s DOUBLE PRECISION,
    input_tokens BIGINT,
    output_tokens BIGINT,
    tokens_estimated BOOLEAN NOT NULL,
    finish_reason TEXT,
    context_truncated BOOLEAN NOT NULL,
    attempts BIGINT NOT NULL,
    metadata JSON NOT NULL,
    PRIMARY KEY (sample_id)
);
CREATE INDEX ix_samples_run_id_started_at ON samples (run_id, started_at);
CREATE TABLE workflow_steps (
    run_id TEXT NOT NULL,
    "key" TEXT NOT NULL,
    seq BIGINT NOT NULL,
    agent TEXT NOT NULL,
    status TEXT NOT NULL,
    started_at DOUBLE PRECISION,
    finished_at DOUBLE PRECISION,
    output JSON NOT NULL,
    input_tokens BIGINT,
    output_tokens BIGINT,
    PRIMARY KEY (run_id, "key")
);
CREATE TABLE workflows (
    run_id TEXT NOT NULL,
    task TEXT NOT NULL,
    workspace TEXT NOT NULL,
    model TEXT,
    status TEXT NOT NULL,
    started_at DOUBLE PRECISION,
    finished_at DOUBLE PRECISION,
    config JSON NOT NULL,
    summary TEXT,
    error TEXT,
    pid BIGINT,
    process_started_at DOUBLE PRECISION,
    hostname TEXT,
    version TEXT,
    PRIMARY KEY (run_id)
);
