"""The rules, one file a family: each looks at a case and names the causes that it can prove, or that fit."""
