"""The page that people see: its built files, and what builds them. README.md describes it; `src/` is in TypeScript."""
