// Applies the chosen colour scheme before the page is drawn; without a choice, that of the system applies.
try {
  const chosen = localStorage.getItem("theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // The browser keeps nothing for this page.
}
