"""Interactive views: one file a widget, with its TypeScript of the same name in `js/widgets`."""
